"""The texts that an export is compared on: invented Japanese clinical text of every kind that meets a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rinsho.chat import Message
from rinsho.chat_template import has_chat, renderer

MAX_LINES = 200  # of a file of texts
MAX_TOKENS = 512  # of one prompt; the last built-in one is as long as the window, at most LONG_TOKENS
LONG_TOKENS = 2048
AS_QUESTIONS = 8  # texts that are also put as questions to a chat model

TEXTS = (
    "患者は68歳男性。2週間前からの労作時呼吸困難を主訴に来院した。",
    "既往歴：高血圧症、2型糖尿病、脂質異常症。家族歴に特記すべきことなし。",
    "入院時現症：意識清明、体温37.8℃、血圧142/86mmHg、脈拍96回/分・整、SpO2 91%（室内気）。",
    "胸部聴診で両側下肺野に湿性ラ音を聴取する。心雑音なし。下腿浮腫あり。",
    "血液検査：WBC 12,300/μL、Hb 10.2g/dL、Plt 18.5万/μL、CRP 8.64mg/dL、BNP 812pg/mL。",
    "AST 34 U/L、ALT 28 U/L、LDH 245 U/L、BUN 32.1 mg/dL、Cre 1.48 mg/dL、Na 134 mEq/L、K 5.1 mEq/L。",
    "HbA1c 7.9%、空腹時血糖186mg/dL、LDL-C 141mg/dL、HDL-C 38mg/dL、TG 212mg/dL。",
    "胸部単純X線写真で心胸郭比58%、両側胸水と肺うっ血を認める。",
    "胸部CTで右上葉に25mm大の結節影を認め、縦隔リンパ節の腫大を伴う。cT1cN2M0、cStage IIIAと診断した。",
    "心エコー図検査では左室駆出率35%、びまん性壁運動低下、中等度の僧帽弁逆流を認めた。",
    "急性心不全と診断し、フロセミド20mg静注、カルペリチド0.025μg/kg/minの持続静注を開始した。",
    "【処方】アムロジピン錠5mg 1錠 分1 朝食後、メトホルミン塩酸塩錠500mg 2錠 分2 朝夕食後 28日分",
    "ワルファリン2.5mg/日を内服中でPT-INR 2.3。抜歯に際して休薬は行わなかった。",
    "セフトリアキソン2g/日の投与を5日間行い、解熱と炎症反応の低下を確認した。",
    "シスプラチン75mg/m2とペメトレキセド500mg/m2による化学療法を3週ごとに4コース施行した。",
    "投与3日目に全身の紅斑と好酸球増多が出現し、薬疹を疑い被疑薬を中止した。",
    "ﾊﾞｲﾀﾙｻｲﾝは安定。ｽﾃﾛｲﾄﾞﾊﾟﾙｽ施行後、ﾌﾟﾚﾄﾞﾆｿﾞﾛﾝ30㎎より漸減中。",
    "ＢＰ１２０／８０、ＨＲ７２、ＢＴ３６．５℃。食事５割摂取。排便１回（普通便）。",
    "S) 昨夜から腹痛。\nO) 圧痛・反跳痛あり。McBurney点陽性。\nA) 急性虫垂炎の疑い\nP) 腹部CT、外科コンサルト",
    "#1 慢性腎臓病 G4A3\n#2 腎性貧血\n#3 二次性副甲状腺機能亢進症",
    "・頭痛：なし\n・嘔気：軽度あり\n・めまい：なし\n・しびれ：右上肢に軽度",
    "2023年4月12日、腹腔鏡下S状結腸切除術（D3郭清）を施行。手術時間3時間42分、出血量50mL。",
    "病理所見：中分化管状腺癌、pT3、ly1、v1、pN1a(1/18)、断端陰性。",
    "脳MRI拡散強調画像で左中大脳動脈領域に高信号域を認めた。NIHSS 12点。rt-PAを投与した。",
    "長谷川式簡易知能評価スケール18/30点。夜間の不穏とせん妄がみられる。",
    "妊娠32週3日、子宮収縮と少量の性器出血を主訴に救急搬送された。胎児心拍は良好である。",
    "生後3日の新生児。総ビリルビン16.8mg/dLのため光線療法を開始した。",
    "5歳女児。3日前から38℃台の発熱と咳嗽があり、両側頬部の紅斑を認める。",
    "関節リウマチに対してメトトレキサート8mg/週とエタネルセプトを使用中であり、間質性肺炎の合併に注意を要する。",
    "皮膚科より、帯状疱疹後神経痛に対してプレガバリン75mg 2錠 分2が処方されている。",
    "右大腿骨頸部骨折に対し人工骨頭置換術を施行した。術後2日目より離床を開始し、リハビリテーションを継続している。",
    "Pt is alert and oriented. Follow-up CT showed no evidence of recurrence. 経過良好につき外来フォローとする。",
    "COPD (GOLD stage III)、FEV1/FVC 52%、%FEV1 41%。LAMA/LABA配合剤の吸入を継続。",
    "COVID-19 PCR陽性。第5病日に酸素需要が増大し、デキサメタゾン6mg/日を開始した。",
    "質問: 次のうち、深部静脈血栓症の危険因子として誤っているものはどれか。1つ選べ。",
    "A. 長期臥床 B. 経口避妊薬 C. 悪性腫瘍 D. 低血圧",
    "ご紹介ありがとうございます。貴院にて加療中の上記患者様ですが、当科的には緊急の治療を要する所見は認めませんでした。",
    "看護記録：14時、トイレ歩行時にふらつきあり。転倒リスクを説明し、ナースコールを押すよう指導した。",
    "インスリン グラルギン 8単位 眠前、速効型 4-4-4単位。低血糖（58mg/dL）時はブドウ糖10gを内服するよう説明した。",
    "姓に「髙」「﨑」を含む患者あり。腋窩の臭汗症。瘭疽の既往。😷着用を依頼した。",
)


@dataclass(frozen=True)
class Probes:
    """What a model and its export are fed.

    Attributes:
        texts: built-in and given ones.
        ids: the prompts, none longer than the window.
    """

    texts: list[str]
    ids: list[list[int]]

    @property
    def tokens(self) -> int:
        """Of all prompts."""
        return sum(map(len, self.ids))


def probes(tokenizer: Any, window: int, where: Path, given: Path | None = None) -> Probes:
    """Texts and prompts: each text after the begin mark, some as questions of a conversation, and a long one.

    Args:
        tokenizer: the model's.
        window: tokens that the model was made for.
        where: the model's folder, for errors.
        given: a file with further texts, one a line.
    """
    texts = [*TEXTS]
    if given is not None:
        texts += [line.strip() for line in given.read_text(encoding="utf-8").splitlines() if line.strip()]
    begin = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    plain = [begin + ids_of(tokenizer, text) for text in texts]
    rows = [ids[: min(window, MAX_TOKENS)] for ids in plain]
    if has_chat(tokenizer):
        render = renderer(tokenizer, where)
        asked = (render([Message("user", text)], add_generation_prompt=True)[0] for text in texts[:AS_QUESTIONS])
        rows += [ids for ids in asked if len(ids) <= min(window, MAX_TOKENS)]
    long = [number for ids in plain for number in ids]
    rows.append(long[: min(window, LONG_TOKENS)])
    return Probes(texts, [ids for ids in rows if ids])


def ids_of(tokenizer: Any, text: str) -> list[int]:
    """Ids of ordinary text, no special ones added."""
    if hasattr(tokenizer, "encode_text"):
        return list(tokenizer.encode_text(text))
    return list(tokenizer.encode(text, add_special_tokens=False))
