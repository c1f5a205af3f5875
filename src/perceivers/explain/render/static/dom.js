// Helpers for elements and canvases.

/** Make an element with attributes and children: elements, or a text. */
export function make(name, attributes = {}, children = []) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...(typeof children === "string" ? [children] : children));
  return element;
}

/** Return a color that the style sheet names. */
export function named(color) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${color}`).trim();
}

/** Draw now, and again whenever an element's width or the color scheme changes. */
export function redraw(element, draw) {
  let width = -1;
  new ResizeObserver(() => {
    if (element.clientWidth === width) return;
    width = element.clientWidth;
    draw();
  }).observe(element);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

/** Give a canvas as many pixels as the screen has there, and return its context in pixels of the page. */
export function sharp(canvas, width, height) {
  const ratio = Math.min(devicePixelRatio || 1, 2);
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return context;
}
