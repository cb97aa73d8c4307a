// Entities as a table that Excel opens: UTF-8 with a byte order mark, CRLF, quoted where needed.

const COLUMNS = ["start", "end", "kind", "text", "probability", "unsure", "source"];

/** Rows of `COLUMNS` as CSV. `start` and `end` count code points of the text as it was pasted, from 0. */
export function csv(rows) {
  const lines = [COLUMNS, ...rows.map((row) => COLUMNS.map((name) => row[name]))];
  return `\ufeff${lines.map((line) => `${line.map(cell).join(",")}\r\n`).join("")}`;
}

/** A field. Words that a spreadsheet would run as a formula get an apostrophe in front; signed numbers stay. */
function cell(value) {
  if (value === null || value === undefined) return "";
  let text = String(value);
  if (/^[=@\t\r]/.test(text) || (/^[+-]/.test(text) && !/^[+-][\d.]+$/.test(text))) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
