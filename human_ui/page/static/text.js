// Texts as people wrote them: blocks that the server found, or the letters as they stand with what only one of two texts has.
const element = (tag, className, ...inside) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...inside);
  return made;
};
const TAGS = { strong: "strong", em: "em", code: "code" };
const spans = (block) => block.spans.map(([text, style]) => (TAGS[style] ? element(TAGS[style], "", text) : text));

function draw(block) {
  switch (block.kind) {
    case "heading": return element(`h${Math.min(6, block.level + 2)}`, "", ...spans(block));
    case "code": return element("pre", "", element("code", "", block.text));
    case "rule": return document.createElement("hr");
    case "quote": return element("blockquote", "", ...spans(block));
    case "table": return element("table", "", ...block.rows.map((row, at) => element("tr", "",
      ...row.map((cell) => element(at ? "td" : "th", "", ...spans({ spans: cell }))))));
    case "item": {
      const made = element("p", "item", element("span", "mark", block.mark), ...spans(block));
      made.style.marginInlineStart = `${1.4 * block.depth}em`;
      return made;
    }
    case "plain": return element("p", "plain", block.text);
    default: return element("p", "", ...spans(block));
  }
}

const canvas = document.createElement("canvas");
[canvas.width, canvas.height] = [40, 40];
const pen = canvas.getContext("2d", { willReadFrequently: true });
const known = new Map();
function drawn(letter) { // as it looks, to be compared with how a letter looks that no font has
  pen.clearRect(0, 0, 40, 40);
  pen.font = "24px system-ui, sans-serif";
  pen.fillText(letter, 4, 30);
  return pen.getImageData(0, 0, 40, 40).data.join();
}
function isMissing(letter) {
  if (!known.has("")) known.set("", drawn("\u{2FFFF}"));
  if (!known.has(letter)) known.set(letter, drawn(letter) === known.get(""));
  return known.get(letter);
}
const missing = (text) => [...new Set(text.match(/[\p{L}\p{S}]/gu) ?? [])].filter((one) => one > "\u024F").slice(0, 300).some(isMissing);

export function textOf(item, marked) {
  const box = element("div", "text");
  box.tabIndex = 0;
  box.dir = "auto";
  if (marked && item.marks) box.append(element("p", "plain", ...item.marks.map(([text, only]) => (only ? element("mark", "", text) : text))));
  else box.append(...(item.blocks ?? [{ kind: "plain", text: item.text }]).map(draw));
  if (missing(item.text ?? ""))
    box.append(element("p", "missing", "Some letters of this text cannot be shown here: a font for them is missing on this computer."));
  return box;
}
