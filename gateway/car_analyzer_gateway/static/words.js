// What the page says, in each language; labels and heads that are not here are shown as the model names them.

const WORDS = {
  en: {
    forDevelopers: "For developers",
    language: "Language",
    add: "Add photos",
    demo: "Demo models: do not rely on their answers.",
    question: "Is the car clean? Is it intact?",
    howTo: "Drop photos here, paste them, or choose them.",
    choose: "Choose photos",
    shoot: "Take a photo",
    formats: "JPEG, HEIC, PNG, WebP, AVIF, TIFF, BMP or GIF.",
    notKept: "Photos are not stored.",
    kept: "This service keeps some photos, without their metadata, to improve its answers.",
    tokenNeeded: "This service asks for an access token",
    tokenWrong: "That token was not accepted. Try another one",
    tokenSend: "Continue",
    tokenHelp: "It is kept until this tab is closed.",
    results: "Results",
    cancel: "Cancel",
    copy: "Copy JSON",
    copied: "Copied",
    notCopied: "Could not copy",
    download: "Download JSON",
    clear: "Clear",
    show: "Show",
    all: "All",
    failed: "Failed",
    dropHere: "Drop the photos",
    progress: "{done} of {total} done",
    finished: "{done} of {total} done, {failed} failed",
    waiting: "Waiting",
    sending: "Analysing…",
    retrying: "The service is busy; trying again in {seconds} s",
    locked: "Waiting for the token",
    cancelled: "Cancelled",
    again: "Try again",
    remove: "Remove {name}",
    noPreview: "No preview",
    asStored: "Stored turned or mirrored: the networks see it as stored, not as shown here.",
    milliseconds: "{ms} ms",
    model: "model version {version}",
    confidence: "confidence",
    showWhere: "Show where",
    opacity: "Opacity",
    explaining: "Looking for the places…",
    bright: "Bright places speak most for: {labels}",
    notExplained: "This service does not show where in the photo this answer comes from.",
    notExplainable: "The model cannot show where its answers come from; export it with a newer version.",
    isRight: "Is this right?",
    right: "Right",
    wrong: "Wrong: it is …",
    cannotTell: "Cannot tell",
    sendFeedback: "Send",
    close: "Close",
    thanks: "Thank you. The service has noted it.",
    network: "The service cannot be reached. Check the connection and try again.",
    unreadable: "The service gave an answer that cannot be understood.",
    other: "The service answered with an error ({status}).",
    heads: { cleanliness: "Cleanliness", condition: "Condition" },
    nothing: "None",
    labels: { clean: "Clean", dirty: "Dirty", intact: "Intact", damaged: "Damaged", unsure: "Not sure" },
    statuses: {},
  },
  ru: {
    forDevelopers: "Разработчикам",
    language: "Язык",
    add: "Добавить фото",
    demo: "Демонстрационные модели: на их ответы нельзя полагаться.",
    question: "Машина чистая? Целая?",
    howTo: "Перетащите фото сюда, вставьте или выберите их.",
    choose: "Выбрать фото",
    shoot: "Сделать снимок",
    formats: "JPEG, HEIC, PNG, WebP, AVIF, TIFF, BMP или GIF.",
    notKept: "Фото не сохраняются.",
    kept: "Сервис сохраняет часть фото без метаданных, чтобы отвечать точнее.",
    tokenNeeded: "Для этого сервиса нужен токен доступа",
    tokenWrong: "Этот токен не подошёл. Попробуйте другой",
    tokenSend: "Продолжить",
    tokenHelp: "Он хранится, пока открыта эта вкладка.",
    results: "Результаты",
    cancel: "Отменить",
    copy: "Копировать",
    copied: "Скопировано",
    notCopied: "Не удалось скопировать",
    download: "Скачать JSON",
    clear: "Очистить",
    show: "Показать",
    all: "Все",
    failed: "Ошибки",
    dropHere: "Отпустите фото",
    progress: "Готово {done} из {total}",
    finished: "Готово {done} из {total}, с ошибкой: {failed}",
    waiting: "В очереди",
    sending: "Анализируется…",
    retrying: "Сервис занят; повтор через {seconds} с",
    locked: "Ожидание токена",
    cancelled: "Отменено",
    again: "Повторить",
    remove: "Убрать {name}",
    noPreview: "Нет предпросмотра",
    asStored: "Файл хранит фото повёрнутым или отражённым: сети видят его таким, а не как здесь.",
    milliseconds: "{ms} мс",
    model: "версия модели {version}",
    confidence: "уверенность",
    showWhere: "Показать, где",
    opacity: "Непрозрачность",
    explaining: "Ищем места…",
    bright: "Яркие места говорят в пользу ответа: {labels}",
    notExplained: "Этот сервис не показывает, какие места фото определили этот ответ.",
    notExplainable: "Модель не умеет показывать, какие места определили ответ; экспортируйте её новой версией.",
    isRight: "Это верно?",
    right: "Верно",
    wrong: "Неверно: это …",
    cannotTell: "Не могу сказать",
    sendFeedback: "Отправить",
    close: "Закрыть",
    thanks: "Спасибо, сервис это учёл.",
    network: "Сервис недоступен. Проверьте соединение и повторите.",
    unreadable: "Ответ сервиса не удалось понять.",
    other: "Сервис ответил ошибкой ({status}).",
    heads: { cleanliness: "Чистота", condition: "Состояние" },
    nothing: "Ничего",
    labels: { clean: "Чистая", dirty: "Грязная", intact: "Целая", damaged: "Повреждённая", unsure: "Под вопросом" },
    // The service speaks English; its own sentence stands below these.
    statuses: {
      400: "Это фото не удалось прочитать.",
      408: "Загрузка заняла слишком много времени.",
      413: "Фото слишком большое.",
      500: "Ошибка в сервисе.",
      502: "Модель не справилась с этим фото.",
      503: "Сервис сейчас недоступен. Повторите чуть позже.",
      504: "Сервис не ответил вовремя. Повторите.",
    },
  },
};

const KEPT = "language";
let language = choose();

function choose() {
  const wanted = [recall(), ...navigator.languages].map((tag) => tag?.slice(0, 2).toLowerCase());
  return wanted.find((tag) => Object.hasOwn(WORDS, tag)) ?? "en";
}

// A browser may refuse to keep things; the page works all the same.
function recall() {
  try {
    return localStorage.getItem(KEPT);
  } catch {
    return null;
  }
}

export function setLanguage(tag) {
  language = tag;
  try {
    localStorage.setItem(KEPT, tag);
  } catch {
    // Then it holds until the page is left.
  }
}

export const currentLanguage = () => language;

export function say(key, values = {}) {
  return WORDS[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

const look = (table, name) => (Object.hasOwn(WORDS[language][table], name) ? WORDS[language][table][name] : null);

export const headName = (head) => look("heads", head) ?? head;

export const labelName = (label) => look("labels", label) ?? String(label);

export const percent = (share) =>
  new Intl.NumberFormat(language, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 }).format(share);

export const milliseconds = (ms) =>
  say("milliseconds", { ms: new Intl.NumberFormat(language, { maximumFractionDigits: 0 }).format(ms) });

// A failure in the reader's language, and the service's own words where they are in another one.
export function explain({ kind, status, message }) {
  if (kind) return { text: say(kind), detail: null };
  const own = look("statuses", String(status));
  if (language === "en" && message) return { text: message, detail: null };
  return { text: own ?? say("other", { status }), detail: message };
}

// Texts of the document itself, marked with data-text and data-label.
export function translate(root) {
  document.documentElement.lang = language;
  for (const element of root.querySelectorAll("[data-text]")) element.textContent = say(element.dataset.text);
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", say(element.dataset.label));
  }
}
