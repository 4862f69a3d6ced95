// How photos come to the page: chosen, taken, dropped (folders, too) or pasted.

const PHOTO = /\.(jpe?g|jfif|mpo|png|webp|bmp|gif|tiff?|avif|hei[cf])$/i;

export function takeIn({ add, chooseButton, shootButton, files, camera, veil }) {
  for (const [button, input] of [[chooseButton, files], [shootButton, camera]]) {
    button.addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      add([...input.files]);
      input.value = "";
    });
  }
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) add([...event.clipboardData.files]);
  });
  takeDrops(add, veil);
}

function takeDrops(add, veil) {
  const hasFiles = (event) => event.dataTransfer.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    veil.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) veil.hidden = true;
  });
  document.addEventListener("drop", async (event) => {
    veil.hidden = true;
    if (!hasFiles(event)) return;
    event.preventDefault();
    add(await dropped(event.dataTransfer));
  });
}

async function dropped(transfer) {
  // Entries and files have to be taken before the first wait: the browser forgets them then.
  const files = [...transfer.files];
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return files;
  const found = await Promise.all(entries.map(walk));
  return found.flat();
}

async function walk(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const found = [];
  // A reader hands out a folder in pieces.
  for (;;) {
    const piece = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!piece.length) break;
    found.push(...piece.filter((inner) => inner.isDirectory || PHOTO.test(inner.name)));
  }
  return (await Promise.all(found.map(walk))).flat();
}
