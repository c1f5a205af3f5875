// Outputs of the model as bars with numbers, and as one sentence for screen readers.

import { make } from "./dom.js";

const MOST = 8;

function percent(value) {
  const shown = 100 * value;
  return `${shown.toFixed(shown > 99.94 || shown < 9.95 ? 2 : 1)} %`;
}

function plain(value) {
  return Number.isFinite(value) ? String(Number(value.toPrecision(4))) : "unknown";
}

function bar(name, text, part, best) {
  const fill = make("div", { class: "fill" });
  fill.style.setProperty("--part", Math.max(0, Math.min(1, part)));
  return make("li", best ? { class: "best" } : {}, [
    make("span", {}, name),
    make("span", { class: "number" }, text),
    make("div", { class: "track", "aria-hidden": "true" }, [fill]),
  ]);
}

function labels(answer) {
  const several = Array.isArray(answer.labels);
  const chosen = several ? answer.labels : [answer.label];
  const rows = answer.top.slice(0, MOST);
  const said = several ? chosen.join(", ") || "none of its labels" : answer.label;
  const sure = several ? "" : `, ${percent(answer.probability)}`;
  const bars = rows.map((row) => bar(row.label, percent(row.probability), row.probability, chosen.includes(row.label)));
  return { said, spoken: said + sure, bars };
}

function numbers(answer) {
  const rows = Object.entries(answer.values).map(([name, value]) => [name, value ?? NaN]);
  const largest = Math.max(...rows.map(([, value]) => Math.abs(value) || 0), 1e-12);
  const bars = rows.map(([name, value]) => bar(name, plain(value), (Math.abs(value) || 0) / largest, true));
  const spoken = rows.map(([name, value]) => `${name} ${plain(value)}`).join(", ");
  return { said: "", spoken, bars };
}

function blanks(answer) {
  const bars = answer.blanks[0].top.slice(0, MOST).map((row, place) => bar(row.label, percent(row.probability), row.probability, !place));
  return { said: answer.text, spoken: answer.text, bars };
}

function contents(answer) {
  if (answer.blanks?.length) return blanks(answer);
  if (answer.top?.length) return labels(answer);
  return numbers({ values: answer.values ?? {} });
}

/** Return the outputs of an answer by name: those of several tasks, or the answer itself. */
function outputsOf(answers) {
  return answers.flatMap((answer) => Object.entries(answer.tasks ?? { "": answer }));
}

/** Draw the outputs of answers into an element and return them as a sentence. */
export function drawAnswers(host, answers) {
  const spoken = [];
  host.replaceChildren();
  for (const [name, output] of outputsOf(answers)) {
    const found = contents(output);
    if (name) host.append(make("h3", {}, name));
    if (found.said) host.append(make("p", { class: "said" }, found.said));
    for (const [input, image] of Object.entries({ output: output.image, ...output.images })) {
      if (image) host.append(make("img", { src: image, alt: `${input}, as an image`, class: "drawn image" }));
    }
    if (found.bars.length) host.append(make("ol", { class: "bars" }, found.bars));
    spoken.push(name ? `${name}: ${found.spoken}` : found.spoken);
  }
  return spoken.join("; ");
}
