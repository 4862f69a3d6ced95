/** What went wrong, as the caller is told: a status and a sentence. */
export class Problem extends Error {
  constructor(status, message, options) {
    super(message, options);
    this.status = status;
  }
}

export function unreachable(cause) {
  return new Problem(503, "The analyzer cannot be reached; try again in a moment.", { cause });
}
