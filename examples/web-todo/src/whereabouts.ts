// Where a document's changes are: in this browser's storage, and on the server.
//
// Owns: comparing our heads with those that were saved and those that the server says it has.
// Must not: guess; what the server has said nothing about is unknown.
// Next: status-view.ts.
import { next as Automerge } from "@automerge/automerge/slim"
import { type DocHandle, type Repo, type UrlHeads, decodeHeads } from "@automerge/automerge-repo/slim"
import type { Connection } from "./connection"
import { type Settings, knownServerHeads, rememberServerHeads } from "./settings"
import type { Item, List } from "./todo"

export type Whereabouts = {
  /** `failed`: the browser's storage takes nothing. */
  here: "saved" | "saving" | "failed"
  /** Changes that the server lacks; `behind` while it has changes that we lack, `unknown` before it has said anything. */
  server: number | "behind" | "unknown"
  /** Items that are not on the server as they are here. */
  waiting: Set<string>
}

export class Tracker {
  #saved: UrlHeads | undefined
  #saving = false
  #failed = false

  constructor(
    private readonly repo: Repo,
    private readonly handle: DocHandle<List>,
    private readonly connection: Connection,
    private readonly settings: Settings,
    private readonly onChange: () => void,
  ) {
    handle.on("remote-heads", onChange)
    handle.on("heads-changed", () => void this.#save())
    void this.#save()
  }

  now(): Whereabouts {
    const here = this.#failed ? "failed" : same(this.#saved, this.handle.heads()) ? "saved" : "saving"
    const doc = this.handle.doc()
    const onServer = this.#onServer()
    if (!onServer) return { here, server: "unknown", waiting: new Set() }
    const heads = decodeHeads(onServer)
    if (!Automerge.hasHeads(doc, heads)) return { here, server: "behind", waiting: new Set() }
    const missing = Automerge.getChangesMetaSince(doc, heads).length
    const waiting = missing === 0 ? new Set<string>() : differing(doc.items, Automerge.view(doc, heads).items ?? [])
    return { here, server: missing, waiting }
  }

  /**
   * What the server said last that it has, in this session or an earlier one. Syncline says it once it is on its disk,
   * so this is more than "sent".
   */
  #onServer(): UrlHeads | undefined {
    const { server } = this.settings
    const storage = this.connection.serverStorage
    const told = storage && this.handle.getSyncInfo(storage)?.lastHeads
    if (told) rememberServerHeads(server, this.handle.documentId, [...told])
    return told ?? (knownServerHeads(server, this.handle.documentId) as UrlHeads | undefined)
  }

  async #save(): Promise<void> {
    if (this.#saving) return
    this.#saving = true
    try {
      while (!same(this.#saved, this.handle.heads())) {
        const heads = this.handle.heads()
        await this.repo.flush([this.handle.documentId])
        this.#saved = heads
      }
      this.#failed = false
    } catch (error) {
      console.error("the browser did not save", error)
      this.#failed = true
    }
    this.#saving = false
    this.onChange()
  }
}

function same(left: UrlHeads | undefined, right: UrlHeads): boolean {
  return left !== undefined && [...left].sort().join() === [...right].sort().join()
}

function differing(items: Item[], others: Item[]): Set<string> {
  const seen = new Map(others.map((item) => [item.id, JSON.stringify(item)]))
  return new Set(items.filter((item) => seen.get(item.id) !== JSON.stringify(item)).map((item) => item.id))
}
