// An image with its map over it, and a video frame by frame.

import { grayed, loaded, tile } from "./colors.js";
import { make } from "./dom.js";

const LARGE = 640; // pixels of the longer side, at least, of a small image

function board(view, label) {
  const scale = Math.max(1, Math.round(LARGE / Math.max(view.width, view.height)));
  const canvas = make("canvas", { class: "drawn image", role: "img", "aria-label": label });
  canvas.width = view.width * scale;
  canvas.height = view.height * scale;
  return canvas;
}

function lay(canvas, beneath, map, extent) {
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.drawImage(beneath, 0, 0, canvas.width, canvas.height);
  if (map) context.drawImage(map, 0, 0, canvas.width * extent[1], canvas.height * extent[0]);
}

/** Draw an image; return a function that draws another map over it. */
export async function imageView(view, host) {
  const [colored, gray] = await Promise.all([loaded(view.image), grayed(view.image)]);
  const canvas = board(view, `${view.input} with the map over it`);
  const plain = make("img", { src: view.image, alt: `${view.input} as the model received it`, class: "drawn image" });
  host.append(make("div", { class: "pair" }, [plain, canvas]));
  return (map) => lay(canvas, map ? gray : colored, map && tile(map, ...view.axes), view.extent);
}

/** Draw the frame at a clock's time; return a function that draws another map over it. */
export async function videoView(view, host, clock) {
  const colored = await Promise.all(view.frames.map(loaded));
  const gray = await Promise.all(view.frames.map(grayed));
  const canvas = board(view, `${view.input} with the map over it, frame by frame`);
  host.append(canvas);
  const [times, rows, columns] = view.axes;
  let shown = null;
  const draw = () => {
    const frame = Math.min(Math.floor(clock.now * view.rate + 1e-6), view.frames.length - 1);
    const start = Math.min(Math.floor(frame / view.step), times - 1) * rows * columns;
    canvas.dataset.frame = frame;
    lay(canvas, (shown ? gray : colored)[frame], shown && tile(shown, rows, columns, { start }), view.extent.slice(1));
  };
  clock.listen(draw);
  return (map) => {
    shown = map;
    draw();
  };
}
