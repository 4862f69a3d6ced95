// Small pictures of large photos, made when their cards come near the window, a few at a time.

const WIDTH = 480;
const AT_ONCE = 2;

const waiting = new Map();
let running = 0;

const observer = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) waiting.get(target)?.near();
    }
  },
  { rootMargin: "400px" },
);

const ready = [];

export function preview(frame, file) {
  const near = () => {
    forget(frame);
    ready.push({ frame, file });
    next();
  };
  waiting.set(frame, { near });
  observer.observe(frame);
}

export function forget(frame) {
  observer.unobserve(frame);
  waiting.delete(frame);
}

function next() {
  while (running < AT_ONCE && ready.length) {
    running += 1;
    draw(ready.shift()).finally(() => {
      running -= 1;
      next();
    });
  }
}

async function draw({ frame, file }) {
  if (!frame.isConnected) return;
  try {
    const bitmap = await createImageBitmap(file, { resizeWidth: WIDTH, resizeQuality: "medium" });
    const canvas = document.createElement("canvas");
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
    // Not through a "bitmaprenderer": in Chromium that forgets which way up the photo is.
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
    canvas.setAttribute("aria-hidden", "true");
    frame.prepend(canvas);
  } catch {
    // Not a photo, or one that this browser cannot show (TIFF); the service decides what it is.
    frame.classList.add("blank");
  }
}
