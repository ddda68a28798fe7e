// What the answers have come to: sentences, a filmstrip of the agent over its training, its film, and the learned return.

const make = (tag, properties = {}, ...inside) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...inside);
  return element;
};

export function showOutcome({ lines, advice, curve, film, films }) {
  const parts = lines.map((line) => make("p", { textContent: line }));
  if (advice) parts.push(make("p", { className: "advice", textContent: advice }));
  const newest = films.at(-1);
  if (film) parts.push(make("h2", { textContent: "What the agent learned" }), moving(film, "film", true));
  else if (newest) parts.push(make("h2", { textContent: `The newest behaviour, after ${newest.steps.toLocaleString()} steps` }), moving(newest.film, "film"));
  if (films.length > 1) parts.push(make("h2", { textContent: "Over the training" }), strip(films));
  if (curve.length > 1) parts.push(make("h2", { textContent: "Learned return of an episode, along the training" }), graph(curve));
  return parts;
}

function moving(src, className, controls = false) {
  const video = make("video", { src, className, controls, loop: true, muted: true, autoplay: true, playsInline: true });
  video.addEventListener("error", () => video.remove());
  return video;
}

function strip(films) {
  const cells = films.map(({ steps, film }) => make("figure", {}, moving(film, ""), make("figcaption", { textContent: `${steps.toLocaleString()} steps` })));
  const made = make("div", { className: "strip", tabIndex: 0, ariaLabel: "The agent along its training" }, ...cells);
  requestAnimationFrame(() => { made.scrollLeft = made.scrollWidth; }); // the newest is seen first
  return made;
}

function graph(points) {
  const space = "http://www.w3.org/2000/svg";
  const [width, height, left, bottom] = [640, 240, 60, 30];
  const draw = (tag, attributes, text = "") => {
    const element = document.createElementNS(space, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    return element;
  };
  const steps = points.map(([step]) => step), values = points.map(([, value]) => value);
  const [low, high, last] = [Math.min(...values), Math.max(...values), Math.max(...steps)];
  const x = (step) => left + (width - left - 10) * step / (last || 1);
  const y = (value) => 10 + (height - bottom - 20) * (high - value) / (high - low || 1);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `From ${values[0].toFixed(1)} to ${values.at(-1).toFixed(1)}` });
  svg.append(
    draw("polyline", { points: points.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" "), class: "curve" }),
    draw("text", { x: left - 8, y: y(high) + 5, "text-anchor": "end" }, high.toPrecision(3)),
    draw("text", { x: left - 8, y: y(low) + 5, "text-anchor": "end" }, low.toPrecision(3)),
    draw("text", { x: width - 10, y: height - 6, "text-anchor": "end" }, `${last.toLocaleString()} steps`),
  );
  return svg;
}
