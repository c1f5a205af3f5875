// From levels of attention to colors. A level is a byte: 0 is nothing there, 1 to 255 from least to most.

import { make } from "./dom.js";

// Dark to light, so that it reads without colors, too.
const STOPS = [[13, 11, 34], [70, 17, 99], [136, 34, 106], [196, 60, 78], [236, 105, 37], [251, 165, 44], [252, 247, 180]];

function mixed(part) {
  const place = part * (STOPS.length - 1);
  const low = Math.min(Math.floor(place), STOPS.length - 2);
  return STOPS[low].map((value, index) => Math.round(value + (STOPS[low + 1][index] - value) * (place - low)));
}

// Few places get most of what there is, so that colors follow its square root: the rest can be told apart, too.
const HEAT = Array.from({ length: 256 }, (_, level) => mixed(strength(level)));

/** Return the levels of a map as bytes. */
export function levelsOf(map) {
  return Uint8Array.from(atob(map.values), (letter) => letter.charCodeAt(0));
}

/** Return a color of the scale, for how strong something is drawn. */
export function heat(part, alpha = 1) {
  const [red, green, blue] = mixed(Math.max(0, Math.min(1, part)));
  return `rgb(${red} ${green} ${blue} / ${alpha})`;
}

/** Return how strong a level is drawn, between 0 and 1. */
export function strength(level) {
  return level ? Math.sqrt((level - 1) / 254) : 0;
}

/** Return what a level stands for, in multiples of an even share. */
export function timesOf(level, view) {
  return level ? view.low + ((view.high - view.low) * (level - 1)) / 254 : 0;
}

/** Return a canvas with one pixel for each level; what got more than a little glows, what is missing stays clear. */
export function tile(levels, rows, columns, upwards = false) {
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const level = levels[(upwards ? rows - 1 - row : row) * columns + column];
      const place = 4 * (row * columns + column);
      image.data.set(HEAT[level], place);
      image.data[place + 3] = level ? 255 * (0.2 + 0.7 * strength(level)) : 0;
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Return the scale of a view's maps in the colors of a function, with words for its ends and for an even share. */
export function legend(view, color = heat) {
  const canvas = document.createElement("canvas");
  canvas.width = 254;
  canvas.height = 1;
  const context = canvas.getContext("2d");
  for (let level = 0; level < 254; level += 1) {
    context.fillStyle = color(level / 253);
    context.fillRect(level, 0, 1, 1);
  }
  const even = make("span", { class: "even" }, "1×");
  even.style.setProperty("--part", Math.sqrt(1 / view.high));
  const scale = make("span", { class: "scale" }, [canvas, even]);
  return make("span", { class: "legend", title: "In multiples of what each place would get if all got the same" }, [
    "0",
    scale,
    `${view.high.toFixed(1)} × an even share`,
  ]);
}

/** Return a picture without its colors and a little darker, so that those of a map can be told, on white too. */
export async function grayed(source) {
  const image = await loaded(source);
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let place = 0; place < pixels.data.length; place += 4) {
    const [red, green, blue] = pixels.data.subarray(place, place + 3);
    pixels.data.fill(0.75 * (0.3 * red + 0.59 * green + 0.11 * blue), place, place + 3);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** Return a picture once it is there. */
export async function loaded(source) {
  const image = new Image();
  image.src = source;
  await image.decode();
  return image;
}
