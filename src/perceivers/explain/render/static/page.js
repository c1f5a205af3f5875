// The page of one explanation, which holds all of its maps.

import { drawAnswers } from "./answers.js";
import { make } from "./dom.js";
import { Views } from "./views.js";

const explained = JSON.parse(document.getElementById("explanation").textContent);
const [depth, latent, kind, overlay] = ["depth", "latent", "kind", "overlay"].map((id) => document.getElementById(id));
const views = new Views(document.getElementById("views"));
const maps = explained.views[0]?.maps ?? [];
const MEANINGS = {
  class: `Attention through all layers, as far as more of it would make ‘${explained.about}’ more probable.`,
  rollup: "Attention rolled up through all layers, from the output to the elements.",
};

/** Return a sentence on the map that is drawn. */
function meaning(key) {
  const of = latent.value === "all" ? "all latents and heads" : `latent ${latent.value}, the mean over heads,`;
  if (key === "all") return latent.value === "all" ? MEANINGS[explained.map] ?? "" : `Attention of ${of} through all layers.`;
  if (key === "query") return "Attention of the output's own query, through the latents.";
  return kind.value === "scores" && !kind.disabled ? `Scores of ${of} before the softmax.` : `Attention of ${of} in this cross-attention.`;
}

function draw() {
  const { cross_attention: key, title } = maps[depth.value];
  kind.disabled = latent.value === "all" || typeof key !== "number";
  const wanted = kind.disabled ? "attention" : kind.value;
  const chosen = (view) => view.latents.find((one) => String(one.latent) === latent.value)?.[wanted];
  views.replace(Object.fromEntries(explained.views.map((view) => [view.input, chosen(view)])), wanted === "scores");
  views.draw(key, overlay.checked);
  document.getElementById("depth-said").textContent = title;
  depth.setAttribute("aria-valuetext", title);
  document.getElementById("legend").textContent = meaning(key);
}

document.getElementById("name").textContent = document.title = explained.name;
drawAnswers(document.getElementById("answers"), explained.answers);
if (explained.missing.length) document.getElementById("missing").textContent = `Missing: ${explained.missing.join(", ")}.`;
depth.max = maps.length - 1;
depth.disabled = maps.length < 2;
const latents = explained.views.find((view) => view.latents.length)?.latents ?? [];
latent.append(...["all", ...latents.map((one) => one.latent)].map((name) => make("option", { value: name }, String(name))));
latent.disabled = !latents.length;
await views.show(explained.views);
for (const control of [depth, latent, kind, overlay]) control.addEventListener("input", draw);
draw();
document.body.dataset.ready = "true";
