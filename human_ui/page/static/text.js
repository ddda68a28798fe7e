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

export function textOf(item, marked) {
  const box = element("div", "text");
  box.tabIndex = 0;
  box.dir = "auto";
  if (marked && item.marks) box.append(element("p", "plain", ...item.marks.map(([text, only]) => (only ? element("mark", "", text) : text))));
  else box.append(...(item.blocks ?? [{ kind: "plain", text: item.text }]).map(draw));
  return box;
}
