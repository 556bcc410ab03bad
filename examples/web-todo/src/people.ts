// Who else is here, and what they are writing in.
//
// Owns: automerge-repo's Presence. Must not: store anything; presence is gone with the connection.
// Next: list-view.ts.
import { type DocHandle, Presence } from "@automerge/automerge-repo/slim"
import type { Settings } from "./settings"
import type { List } from "./todo"

/** `editing`: an item's id, `title`, or nothing. */
export type Person = { name: string; hue: number; editing: string | null }

// A server passes presence on once it has heard of the document on this connection, so it is said once more.
const GREET_MS = 500

export class People {
  readonly #presence: Presence<Person, List>
  readonly #me: Person

  constructor(handle: DocHandle<List>, { name, hue }: Settings, onChange: () => void) {
    this.#presence = new Presence({ handle })
    this.#me = { name, hue, editing: null }
    for (const event of ["update", "snapshot", "goodbye", "pruning"] as const) this.#presence.on(event, onChange)
    addEventListener("pagehide", () => this.#presence.stop())
    addEventListener("pageshow", ({ persisted }) => persisted && this.greet())
  }

  /** Says who we are to those who do not know us yet, and forgets whom a lost connection left behind. */
  greet(): void {
    this.#presence.stop()
    this.#presence.start({ initialState: { ...this.#me } })
    setTimeout(() => {
      if (!this.#presence.running) return
      for (const part of ["name", "hue", "editing"] as const) this.#presence.broadcast(part, this.#me[part])
    }, GREET_MS)
  }

  editing(what: string | null): void {
    this.#me.editing = what
    if (this.#presence.running) this.#presence.broadcast("editing", what)
  }

  others(): Person[] {
    const states = Object.values(this.#presence.getPeerStates().value)
    // Somebody of whom only a part has come yet has no name.
    return states.map(({ value }) => value).filter(({ name, hue }) => typeof name === "string" && typeof hue === "number")
  }
}
