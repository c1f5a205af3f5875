// All views of one sample: each modality's own, drawn anew whenever another map is chosen.

import { Clock, soundOf } from "./clock.js";
import { legend, levelsOf } from "./colors.js";
import { make } from "./dom.js";
import { player } from "./player.js";
import { arrayView, marker, seriesView, textView, valuesView } from "./view_lines.js";
import { filmView, pictureView } from "./view_picture.js";
import { glow, pointsView } from "./view_points.js";
import { soundView } from "./view_sound.js";

const KINDS = {
  picture: pictureView, film: filmView, sound: soundView, points: pointsView,
  text: textView, series: seriesView, array: arrayView, values: valuesView,
};

const COLORS = { points: glow, text: marker }; // of what is not drawn over a picture

/** Return what to call a map. */
export function titleOf(view, place, reads) {
  const map = view.maps[place];
  if (map.read === "all") return view.title.startsWith("for ") ? `what speaks ${view.title}` : view.title;
  if (map.read === "asked") return "what the answer asked";
  return reads === 1 ? "its only read" : `read ${map.read + 1} of ${reads}`;
}

/** Return the clock that plays the views' clip, or null where nothing lasts. */
async function clockOf(views, file) {
  const lasting = views.filter((view) => view.seconds);
  if (!lasting.length) return null;
  const heard = lasting.some((view) => view.media === "sound") && file ? await soundOf(file) : null;
  return new Clock(Math.max(...lasting.map((view) => view.seconds)), heard);
}

function said(view, map, several) {
  if (!several) return "";
  const percent = (part) => `${(100 * part).toFixed(part > 0 && part < 0.1 ? 1 : 0)} %`;
  const share = typeof map.read === "number" ? view.share[map.read] : view.share.reduce((a, b) => a + b, 0) / view.share.length;
  return `${percent(share)} of all attention went to ${view.input}; ${percent(view.even)} would be an even share.`;
}

/** The views of one explanation. */
export class Views {
  constructor(host) {
    this.host = host;
    this.drawn = [];
    this.clock = null;
  }

  /** Draw what was explained; the file is played where it lasts. */
  async show(views, file) {
    this.clock?.stop();
    this.clock = await clockOf(views, file);
    const figures = document.createElement("div");
    this.drawn = [];
    for (const view of [...views].sort((a, b) => (b.media === "film") - (a.media === "film"))) {
      const figure = make("figure", { "data-input": view.input }, views.length > 1 ? [make("h3", {}, view.input)] : []);
      figures.append(figure);
      const share = make("span", { class: "quiet" });
      const draw = await KINDS[view.media](view, figure, this.clock);
      if (view.seconds && !figures.querySelector(".player")) figure.append(player(this.clock, 0.01));
      figure.append(make("figcaption", {}, [legend(view, COLORS[view.media]), share]));
      this.drawn.push({ view, draw, share, levels: view.maps.map(levelsOf) });
    }
    this.host.replaceChildren(figures);
  }

  /** Put other maps over what is drawn already. */
  replace(views) {
    for (const one of this.drawn) {
      const { maps, share, high, title } = views.find((view) => view.input === one.view.input);
      Object.assign(one.view, { maps, share, high, title });
      one.levels = maps.map(levelsOf);
      one.share.parentElement.querySelector(".legend").replaceWith(legend(one.view, COLORS[one.view.media]));
    }
  }

  /** Draw a map of each view: that of a depth. */
  draw(depth, shown) {
    for (const { view, draw, share, levels } of this.drawn) {
      const place = Math.min(depth, levels.length - 1);
      draw(levels[place], shown);
      share.textContent = said(view, view.maps[place], this.drawn.length > 1);
    }
  }
}
