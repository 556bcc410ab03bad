// The line that says where one's changes are.
//
// Owns: the words. Must not: say "on the server" of anything that the server has not said it has.
// Next: whereabouts.ts.
import type { ConnectionState } from "./connection"
import type { Whereabouts } from "./whereabouts"

/** `tone` is what the style goes by. */
export type Status = { tone: "good" | "busy" | "offline" | "bad"; text: string; here: string; server: string; link: string }

const LINK: Record<ConnectionState, string> = {
  connecting: "connecting",
  connected: "connected",
  offline: "no connection; this page goes on trying",
  refused: "the server answers, but does not let this page in",
}

const REFUSED = "The server does not let you in. Is the token right?"

export function describe(state: ConnectionState, { here, server }: Whereabouts): Status {
  const saved = { saved: "saved", saving: "being saved", failed: "this browser refuses to save" }[here]
  const details = { here: saved, server: onServer(server), link: LINK[state] }
  if (here === "failed") return { tone: "bad", text: "This browser does not save. Do not close the page", ...details }
  if (state === "refused") return { tone: "bad", text: REFUSED, ...details }
  if (state !== "connected") return { tone: "offline", text: offline(state, server), ...details }
  if (here === "saving" || server !== 0) return { tone: "busy", text: sending(server), ...details }
  return { tone: "good", text: "Saved here and on the server", ...details }
}

/** While a list is wanted that is not in this browser. */
export function describeSearch(state: ConnectionState): Status {
  const details = { here: "does not have this list", server: "not known", link: LINK[state] }
  if (state === "refused") return { tone: "bad", text: REFUSED, ...details }
  if (state !== "connected") return { tone: "offline", text: "This list is not in this browser. Looking for a server…", ...details }
  return { tone: "busy", text: "The server does not give you this list. Asking again…", ...details }
}

function offline(state: ConnectionState, server: Whereabouts["server"]): string {
  const start = state === "connecting" ? "Connecting" : "Offline"
  if (server === 0) return `${start} · all on the server`
  if (typeof server === "number") return `${start} · ${changes(server)} saved here`
  return `${start} · saved here`
}

function sending(server: Whereabouts["server"]): string {
  if (server === "behind") return "Fetching what others wrote…"
  return typeof server === "number" && server > 0 ? `${changes(server)} not on the server yet` : "Saving…"
}

function onServer(server: Whereabouts["server"]): string {
  if (server === "unknown") return "not known"
  if (server === "behind") return "has changes that are not here yet"
  return server === 0 ? "has everything" : `lacks ${changes(server)}`
}

function changes(count: number): string {
  return count === 1 ? "1 change" : `${count} changes`
}

export function showStatus(status: Status): void {
  const line = document.querySelector<HTMLElement>("#status")!
  line.dataset.tone = status.tone
  const text = document.querySelector("#status-text")!
  // An announcement to screen readers, so only when it says something else.
  if (text.textContent !== status.text) text.textContent = status.text
  const rows = [["Connection", status.link], ["This browser", status.here], ["Server", status.server]]
  document.querySelector("#details")!.replaceChildren(...rows.flatMap(([name, value]) => [make("dt", name), make("dd", value)]))
}

function make(tag: string, text: string): HTMLElement {
  const element = document.createElement(tag)
  element.textContent = text
  return element
}
