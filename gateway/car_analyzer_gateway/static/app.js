// Ties the page together: photos come in, go to the queue, and their cards follow what becomes of them.

import { choices, correct, explanations, health } from "./api.js";
import { Card } from "./card.js";
import { Filters } from "./filters.js";
import { takeIn } from "./intake.js";
import { copy, download, toJson } from "./out.js";
import { Queue } from "./queue.js";
import { Tokens } from "./token.js";
import { Announcer } from "./announcer.js";
import { currentLanguage, say, setLanguage, translate } from "./words.js";

const $ = (id) => document.getElementById(id);
const ENDS = new Set(["done", "failed", "cancelled"]);

const photos = new Set();
const cards = new Map();
const announcer = new Announcer($("announcer"));
const tokens = new Tokens($("token"));
const queue = new Queue(follow, tokens);
const filters = new Filters($("filters"), summarise);
let planned = false;
// Whether the service keeps photos, and takes what people say about its answers.
let collects = false;

takeIn({ add, chooseButton: $("choose"), shootButton: $("shoot"), files: $("files"), camera: $("camera"), veil: $("drop") });

function add(files) {
  const added = files.map((file) => ({ file }));
  for (const photo of added) {
    photos.add(photo);
    photo.state = "waiting";
    cards.set(photo, new Card(photo, actions));
  }
  $("cards").append(...added.map((photo) => cards.get(photo).element));
  for (const photo of added) cards.get(photo).show();
  queue.add(added);
  summarise();
}

function again(photo) {
  cards.get(photo).focus();
  queue.add([photo]);
  summarise();
}

const actions = {
  again,
  remove,
  explain: ({ file, id }, signal) => withToken((token) => explanations(file, id, token, signal), signal),
  choose: ({ id }, signal) => withToken((token) => choices(id, token, signal), signal),
  correct: ({ id }, labels, signal) => withToken((token) => correct(id, labels, token, signal), signal),
  collects: () => collects,
};

async function withToken(ask, signal) {
  for (;;) {
    const token = tokens.current;
    try {
      return await ask(token);
    } catch (error) {
      if (error.status !== 401) throw error;
      await tokens.replace(token, signal);
    }
  }
}

function remove(photo) {
  const order = [...photos];
  const neighbour = order[order.indexOf(photo) + 1] ?? order[order.indexOf(photo) - 1];
  queue.remove(photo);
  discard(photo);
  if (neighbour) cards.get(neighbour).focus();
  else $("choose").focus();
  plan();
}

function discard(photo) {
  photos.delete(photo);
  cards.get(photo).drop();
  cards.delete(photo);
}

function follow(photo) {
  if (!photos.has(photo)) return;
  cards.get(photo).render();
  if (ENDS.has(photo.state)) announcer.tell(photo, [...photos]);
  // The models may have been replaced, or not ready when the page was opened.
  if (photo.state === "done" && !queue.busy) learn();
  plan();
}

async function learn() {
  const service = await health(tokens.current);
  if (service === null) return;
  $("demo").hidden = service.demo !== true;
  $("description").textContent = service.description ?? "";
  if (collects === (service.feedback === true)) return;
  collects = !collects;
  document.body.classList.toggle("collects", collects);
  $("kept").dataset.text = collects ? "kept" : "notKept";
  speak();
}

// However many photos change at once, the summary is made once a frame; timers also run in a hidden tab.
function plan() {
  if (planned) return;
  planned = true;
  setTimeout(() => {
    planned = false;
    summarise();
  }, 16);
}

function summarise() {
  const all = [...photos];
  const done = all.filter(({ state }) => ENDS.has(state)).length;
  const failed = all.filter(({ state }) => state === "failed").length;
  document.body.classList.toggle("filled", all.length > 0);
  $("results").hidden = all.length === 0;
  $("count").textContent = say(failed ? "finished" : "progress", { done, total: all.length, failed });
  $("progress").max = Math.max(1, all.length);
  $("progress").value = done;
  $("results").dataset.busy = String(queue.busy);
  const focused = document.activeElement;
  $("cancel").hidden = !queue.busy;
  $("clear").hidden = queue.busy;
  // They take turns in one place, and so does the focus.
  if (focused === $("cancel") && !queue.busy) $("clear").focus();
  for (const id of ["copy", "download"]) $(id).disabled = !all.some(({ state }) => ["done", "failed"].includes(state));
  filters.render(all);
  for (const photo of all) cards.get(photo).element.hidden = !filters.matches(photo);
}

$("cancel").addEventListener("click", () => queue.cancel());

$("clear").addEventListener("click", () => {
  for (const photo of [...photos]) discard(photo);
  summarise();
  $("choose").focus();
});

$("copy").addEventListener("click", async () => {
  const key = (await copy(toJson(photos))) ? "copied" : "notCopied";
  $("copy").textContent = say(key);
  announcer.say(say(key));
  setTimeout(() => ($("copy").textContent = say("copy")), 2000);
});

$("download").addEventListener("click", () => download(toJson(photos), "car-analyzer.json"));

const languages = document.querySelectorAll("[data-language]");

function speak() {
  translate(document);
  for (const button of languages) {
    button.setAttribute("aria-pressed", String(button.dataset.language === currentLanguage()));
  }
  for (const card of cards.values()) card.render();
  summarise();
}

for (const button of languages) {
  button.addEventListener("click", () => {
    setLanguage(button.dataset.language);
    speak();
  });
}

speak();
learn();
