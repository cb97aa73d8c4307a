// Invented texts, so that a reader can try the page before pasting a text of their own.

const REPORT = `【退院時サマリー】72歳女性。高血圧症、2型糖尿病で通院中。
3日前から発熱と咳嗽があり、胸部X線で右下肺野に浸潤影を認め、肺炎の診断で入院した。
入院時：体温38.6℃、血圧142/88mmHg、SpO2 92%（室内気）、WBC 13,400/μL、CRP 12.8mg/dL。
セフトリアキソン1回2gを1日1回点滴静注し、第4病日に解熱した。アムロジピン5mg、メトホルミン500mgは継続した。
第8病日のCRPは0.9mg/dL。胸水や肺癌を疑う所見はなく、退院とした。`;

export const EXAMPLES = {
  extract: REPORT,
  classify: {
    text: "軽い咳が残るが熱はなく、食欲も戻り、明日から仕事に行けそうだ。",
    question: "この人に今、発熱の症状はありますか？",
    options: ["あり", "なし", "わからない"],
  },
  tokens: "急性心筋梗塞の疑いで緊急冠動脈造影を施行。ﾄﾛﾎﾟﾆﾝＴ　０．４ng/mL、CK-MB 85 U/L。",
};
