// What this browser remembers beside the documents: who one is, the server, and which lists there are.
//
// Owns: local storage. Must not: take a server or a token from a link, which anybody can send.
// Next: connection.ts.

export type Settings = { name: string; hue: number; server: string; token: string }
export type KnownList = { url: string; title: string }

const NAMES = ["Heron", "Otter", "Wren", "Lynx", "Marten", "Plover", "Badger", "Swift", "Hare", "Newt"]
// Same machine as the page unless the build says otherwise: `npm run dev` on a laptop then works from a phone too.
const SERVER: string = import.meta.env.VITE_SYNC_SERVER ?? `ws://${location.hostname}:3030`
const LISTS_MAX = 20

export function loadSettings(): Settings {
  const stored = read<Partial<Settings>>("settings") ?? {}
  const settings = {
    name: stored.name || NAMES[Math.floor(Math.random() * NAMES.length)],
    hue: stored.hue ?? Math.floor(Math.random() * 360),
    server: stored.server || SERVER,
    token: stored.token ?? "",
  }
  saveSettings(settings)
  return settings
}

export function saveSettings(settings: Settings): void {
  write("settings", settings)
}

/** The lists that were open here, last one first. */
export function knownLists(): KnownList[] {
  return read<KnownList[]>("lists") ?? []
}

export function rememberList(list: KnownList): void {
  const others = knownLists().filter(({ url }) => url !== list.url)
  write("lists", [list, ...others].slice(0, LISTS_MAX))
}

/** What a server was last known to hold of a document, as heads. */
export function rememberServerHeads(server: string, document: string, heads: string[]): void {
  write(`heads ${server} ${document}`, heads)
}

export function knownServerHeads(server: string, document: string): string[] | undefined {
  return read<string[]>(`heads ${server} ${document}`)
}

function read<T>(key: string): T | undefined {
  const stored = localStorage.getItem(key)
  return stored === null ? undefined : (JSON.parse(stored) as T)
}

function write(key: string, value: unknown): void {
  const text = JSON.stringify(value)
  if (localStorage.getItem(key) !== text) localStorage.setItem(key, text)
}
