// One author of a recorded editing session, typing again.
//
// Owns: the author's editor: a document that holds exactly the ancestors of the transaction to be typed next.
// Must not: show the editor a change that its author had not seen, nor send one that the handle did not accept.
// Next: driver.mjs; ../tests/trace.rs; ../traces/ATTRIBUTION.md.
//
// A live client sees whatever has arrived, which is more than its author saw at that moment of the session. So the
// editor is a document of its own: it merges from the handle (the real automerge-repo client) only the ancestors of
// the transaction at hand, waits for those that have not arrived, and gives its changes to the handle, which sends
// them. Every merge and every concurrent edit of the session happens again, none more and none less.
// DocHandle.changeAt gives the same graph and takes ten milliseconds a keystroke on this text.

import { readFileSync } from "node:fs"
import { gunzipSync } from "node:zlib"

// Changes given to the handle at a time; more only means that the other author hears of them later.
const BATCH = 64

/** Types everything that `author` typed, waiting where that author had read the others. */
export async function replay(Automerge, handle, author, path, report) {
  const { txns } = JSON.parse(gunzipSync(readFileSync(path)))
  const inbox = new Inbox(Automerge, handle)
  let editor = Automerge.clone(handle.doc())
  const merged = new Set()
  let made = []

  const publish = async (last) => {
    if (made.length > 0) {
      give(Automerge, handle, made)
      made = []
      report({ event: "typed", author, transaction: last })
    }
    // The socket and the synchronizer get their turn.
    await new Promise(setImmediate)
  }

  for (const [index, txn] of txns.entries()) {
    if (txn.agent !== author) continue
    const missing = ancestors(txns, txn.parents, merged)
    if (!missing.every((ancestor) => inbox.has(ancestor))) {
      await publish(index)
      await inbox.until(missing)
    }
    if (missing.length > 0) {
      editor = Automerge.applyChanges(editor, missing.map((ancestor) => inbox.change(ancestor)))[0]
      for (const ancestor of missing) merged.add(ancestor)
    }
    editor = Automerge.change(editor, { message: String(index), time: 0 }, (doc) => {
      for (const [at, removed, inserted] of txn.patches) Automerge.splice(doc, ["text"], at, removed, inserted)
    })
    made.push(Automerge.getLastLocalChange(editor))
    merged.add(index)
    if (made.length >= BATCH) await publish(index)
  }
  await publish(txns.length)
  inbox.close()
  return true
}

/** Gives changes to the handle and sees to it that they are sent. */
function give(Automerge, handle, changes) {
  let announced = false
  const onChange = () => { announced = true }
  handle.on("change", onChange)
  handle.update((doc) => Automerge.applyChanges(doc, changes)[0])
  handle.off("change", onChange)
  // automerge-repo sends on "change" and emits that only where something visible changed. Removing what the other
  // author has removed too is not visible, would stay here, and the other author waits for it.
  if (!announced) handle.emit("change", { handle, doc: handle.doc(), patches: [] })
}

/** The not yet merged transactions that `parents` build on, parents included, each after those it builds on. */
function ancestors(txns, parents, merged) {
  const found = new Set()
  const open = [...parents]
  while (open.length > 0) {
    const next = open.pop()
    if (merged.has(next) || found.has(next)) continue
    found.add(next)
    open.push(...txns[next].parents)
  }
  // The file lists every transaction after its parents.
  return [...found].sort((left, right) => left - right)
}

/** The changes that the handle has, by the transaction named in their message. */
class Inbox {
  #changes = new Map()
  #heads
  #waiting

  constructor(Automerge, handle) {
    this.Automerge = Automerge
    this.handle = handle
    this.#heads = []
    this.#collect()
    handle.on("heads-changed", this.#collect)
  }

  has(transaction) { return this.#changes.has(transaction) }
  change(transaction) { return this.#changes.get(transaction) }
  close() { this.handle.off("heads-changed", this.#collect) }

  until(transactions) {
    return new Promise((resolve) => {
      this.#waiting = () => transactions.every((transaction) => this.has(transaction)) && resolve()
      this.#waiting()
    })
  }

  #collect = () => {
    const doc = this.handle.doc()
    for (const change of this.Automerge.getChangesSince(doc, this.#heads)) {
      const { message } = this.Automerge.decodeChange(change)
      if (message) this.#changes.set(Number(message), change)
    }
    this.#heads = this.Automerge.getHeads(doc)
    this.#waiting?.()
  }
}
