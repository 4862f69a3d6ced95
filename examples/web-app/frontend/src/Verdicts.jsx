// @ts-check
/** @import { Analysis } from "./analyze.js" */

const SUFFIX = "Confidence";

/**
 * One card for each thing that the models judge, whatever their names are.
 *
 * @param {{ answer: Analysis }} props
 */
export function Verdicts({ answer }) {
  const heads = Object.keys(answer)
    .filter((key) => key.endsWith(SUFFIX))
    .map((key) => key.slice(0, -SUFFIX.length));

  return (
    <>
      <dl className="verdicts">
        {heads.map((head) => (
          <Verdict key={head} name={head} label={answer[head]} confidence={answer[head + SUFFIX]} />
        ))}
      </dl>
      <p className="note">{`Analysed in ${Math.round(answer.processingTime)} ms`}</p>
    </>
  );
}

/** @param {{ name: string, label: Analysis[string], confidence: Analysis[string] }} props */
function Verdict({ name, label, confidence }) {
  const text = Array.isArray(label) ? label.join(", ") || "none" : String(label);
  return (
    <div className="verdict">
      <dt>{name}</dt>
      <dd className="label">{text}</dd>
      <dd>
        <meter min="0" max="1" value={Number(confidence)} aria-label={`confidence of ${name}`} />
        <span>{`${(Number(confidence) * 100).toFixed(1)}%`}</span>
      </dd>
    </div>
  );
}
