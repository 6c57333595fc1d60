// words.js: verdicts, scores and problems in words. No element is touched here.

export const LOOKS = {
  manipulated: { style: "manipulated", mark: "▲", headline: "Signs of editing found" },
  inconclusive: { style: "inconclusive", mark: "◆", headline: "No clear answer" },
  "no sign of editing": { style: "clear", mark: "○", headline: "No sign of editing found" },
};
/** The verdicts on the picture as a whole. */
export const WHOLE = {
  generated: { style: "manipulated", mark: "▲", headline: "Looks generated as a whole." },
  inconclusive: { style: "inconclusive", mark: "◆", headline: "Generated as a whole? No clear answer." },
  "no sign of generation": { style: "clear", mark: "○", headline: "No sign that it was generated as a whole." },
};
export const UNREADABLE = { style: "unreadable", mark: "✕", headline: "This file could not be judged" };

export const looks = (result) => (result && LOOKS[result.verdict]) || UNREADABLE;

export function percent(share) {
  if (share === 0 || share >= 0.0995) return `${Math.round(share * 100)}%`;
  return share >= 0.0005 ? `${(share * 100).toFixed(1)}%` : "under 0.1%";
}

export function bytes(count) {
  const units = ["bytes", "kB", "MB", "GB"];
  let unit = 0;
  while (count >= 1000 && unit < 3) [count, unit] = [count / 1000, unit + 1];
  return `${unit && count < 10 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

/** What the score means, from the calibration that the server tells; one or two sentences. */
export function meaning(result) {
  const decision = result.decision;
  if (!decision || result.score === null) return "";
  const ranks = decision.untouched ?? [];
  if (ranks.length > 1) {
    // ranks[i]: the score that i / (length - 1) of the untouched pictures stay below.
    const above = ranks.filter((score) => score >= result.score).length / ranks.length;
    const count = Math.round(above * 100);
    const among = `Of 100 untouched photos like those it was set on, ${
      count ? `about ${count}` : "fewer than 1"
    } would score this high or higher.`;
    return among;
  }
  if (!decision.calibrated_on) {
    return "This model’s thresholds are not calibrated: the score ranks pictures, but says nothing of how many untouched photos would score as high.";
  }
  const share = /at most (\d+(?:\.\d+)?)\s?%/.exec(decision.calibrated_on);
  if (share && result.score >= decision.manipulated_at) {
    return `Of 100 untouched photos of each kind that it was set on, at most ${share[1]} score this high.`;
  }
  if (share) {
    return `Below the line that at most ${share[1]} of 100 untouched photos of each kind reach: untouched photos score like this too.`;
  }
  return decision.meaning;
}

/** What this model cannot see, most important first; the picture's own limits lead. */
export function blindSpots(result, model) {
  const spots = [];
  const decision = result.decision;
  if (decision && result.width && Math.min(result.width, result.height) < decision.min_side) {
    spots.push(`This picture: its shorter side has ${Math.min(result.width, result.height)} pixels, and ${decision.min_side} are needed for a judgement.`);
  }
  if (result.jpeg_quality && result.jpeg_quality < 90) {
    spots.push(`This picture: it was saved as JPEG at about quality ${result.jpeg_quality}, which removes most of the traces that a model looks for. Ask for an earlier copy.`);
  }
  if (model && !model.native && model.input_size) {
    spots.push(`Small edits: it looks at a copy of ${model.input_size} × ${model.input_size} pixels.`);
  }
  spots.push(
    "What messengers and social media do to a picture: strong compression, shrinking and screenshots wipe traces away.",
    result.generated
      ? "Generators that its second model has not met: a picture made by one may show no sign of it."
      : "Whether a whole picture was made by a machine, unless it leaves the same traces everywhere.",
    "False context: an untouched photo with a wrong caption, date or place.",
    "Staged scenes, and edits by tools that it has never met.",
  );
  return spots;
}

/** One sentence for anything that went wrong on the way to the server and back. */
export function explain(error) {
  if (error.name === "Trouble") return error.message;
  if (error.name === "AbortError") return "Stopped.";
  if (error.name === "TypeError") {
    return "The server does not answer. It may have been stopped: start it again with forgemap serve, then try once more. Your pictures are still here.";
  }
  return `Something in this page failed (${error.message}). Reload it and try again.`;
}
