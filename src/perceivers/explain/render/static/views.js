// All views of one explanation, each drawn anew whenever another map is chosen.

import { Clock, player, soundOf } from "./clock.js";
import { legend, mapOf } from "./colors.js";
import { make } from "./dom.js";
import { audioView } from "./view_audio.js";
import { imageView, videoView } from "./view_image.js";
import { arrayView, elementsView, marker, seriesView, tableView, textView } from "./view_lines.js";
import { glow, pointsView } from "./view_points.js";

const KINDS = {
  image: imageView, video: videoView, audio: audioView, points: pointsView, text: textView,
  series: seriesView, array: arrayView, table: tableView, elements: elementsView,
};

const COLORS = { points: glow, text: marker }; // of maps that are not drawn over an image

/** Return the clock that plays the views' clip, or null where no view has a duration. */
async function clockOf(views, fileOf) {
  const lasting = views.filter((view) => view.seconds);
  if (!lasting.length) return null;
  const heard = lasting.find((view) => view.media === "audio");
  const file = heard ? fileOf(heard.input) : null;
  const sound = file ? await soundOf(file) : null;
  const clock = new Clock(Math.max(...lasting.map((view) => view.seconds)), sound);
  clock.isSilent = Boolean(file) && !sound;
  return clock;
}

function shareText(view, key) {
  const percent = (part) => `${(100 * part).toFixed(part > 0 && part < 0.1 ? 1 : 0)} %`;
  const mean = view.share.reduce((a, b) => a + b, 0) / Math.max(view.share.length, 1);
  return `${percent(view.share[key] ?? mean)} of all attention is on ${view.input}; ${percent(view.even)} would be an even share.`;
}

/** The views of one explanation. */
export class Views {
  constructor(host) {
    this.host = host;
    this.drawn = [];
    this.clock = null;
  }

  /** Draw the views of an explanation. `fileOf` returns the file of an input, which is played where it is audio. */
  async show(views, fileOf = () => null) {
    this.clock?.pause();
    this.clock = await clockOf(views, fileOf);
    const figures = document.createElement("div");
    this.drawn = [];
    for (const view of [...views].sort((a, b) => (b.media === "video") - (a.media === "video"))) {
      const figure = make("figure", { "data-input": view.input }, views.length > 1 ? [make("h3", {}, view.input)] : []);
      figures.append(figure);
      const caption = make("figcaption");
      const draw = await (KINDS[view.media] ?? elementsView)(view, figure, this.clock);
      if (view.seconds && !figures.querySelector(".player")) figure.append(player(this.clock, 0.01));
      figure.append(caption);
      this.drawn.push({ view, draw, caption, set: view, scores: false });
    }
    this.host.replaceChildren(figures);
  }

  /** Choose other maps over what is drawn already: a set of maps for each input. */
  replace(sets, scores = false) {
    for (const one of this.drawn) Object.assign(one, { set: sets[one.view.input] ?? one.view, scores });
  }

  /** Draw a map of each view by its key; that of the whole model where a view has none of this key. */
  draw(key, shown = true) {
    for (const { view, draw, caption, set, scores } of this.drawn) {
      const found = set.maps.find((map) => map.cross_attention === key) ?? set.maps[0];
      const map = mapOf(set, found, scores);
      draw(shown ? map : null);
      const share = this.drawn.length > 1 ? [make("span", { class: "quiet" }, shareText(view, key))] : [];
      caption.replaceChildren(legend(map, COLORS[view.media]), ...share);
    }
  }
}
