/** Numbers and states in plain words. */

export const STATES = {
  sending: "Sending",
  refused: "Not sent",
  queued: "Waiting",
  running: "Running",
  succeeded: "Done",
  failed: "Failed",
  canceled: "Canceled",
};

export const ENDED = new Set(["succeeded", "failed", "canceled"]);

/** 7 → "7 s", 95 → "1 min 35 s", 7300 → "2 h 2 min"; "" for what nobody knows. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 10) return `${Math.max(0.1, Math.round(seconds * 10) / 10)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min${whole % 60 ? ` ${whole % 60} s` : ""}`;
  const minutes = Math.round(whole / 60);
  return `${Math.floor(minutes / 60)} h${minutes % 60 ? ` ${minutes % 60} min` : ""}`;
}

/** How long ago an RFC 3339 time was, as people say it. */
export function ago(time, now = Date.now()) {
  const seconds = Math.max(0, (now - Date.parse(time)) / 1000);
  if (seconds < 45) return "just now";
  if (seconds < 3600) return `${Math.max(1, Math.round(seconds / 60))} min ago`;
  if (seconds < 86400) return `${Math.round(seconds / 3600)} h ago`;
  return new Date(time).toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" });
}

export function size(bytes) {
  if (bytes < 1e6) return `${Math.max(1, Math.round(bytes / 1e3))}\u00a0KB`;
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)}\u00a0MB`;
}

/** Where a job stands, in one line. */
export function standing(job) {
  switch (job.status) {
    case "sending":
      return job.note || "Sending the picture …";
    case "queued":
      return queued(job);
    case "running":
      return job.progress?.steps ? `Step ${job.progress.step} of ${job.progress.steps}` : "Beginning …";
    case "succeeded":
      return job.timings?.total_s ? `Done in ${duration(job.timings.total_s)}` : "Done";
    case "canceled":
      return "Canceled";
    default:
      return STATES[job.status];
  }
}

function queued(job) {
  const again = job.next_attempt_at ? "Will be tried again. " : "";
  const { position, eta_s } = job.estimate ?? {};
  const place = !position ? "Waiting" : position === 1 ? "Next" : `Number ${position.toLocaleString()} in line`;
  return `${again}${place}${eta_s ? `, about ${duration(eta_s)}` : ""}`;
}

/** Why a job has no picture. */
export const reason = (job) => (job.error ? [job.error.title, job.error.detail].filter(Boolean).join(": ") : "");
