// Automerge values as JSON and back.
//
// Owns: the tags ({"$date": ms}, {"$bytes": hex}, …) and the small language of edits.
// Must not: lose a type: what JSON cannot say is tagged, except that automerge-js itself reads all its numbers as one.
// Next: driver.mjs; ../src/browser.rs.

import { createHash, randomBytes } from "node:crypto"

// Longer byte strings are compared by their hash: a 50 MB value need not travel through a pipe as text.
const BYTES_SHOWN_MAX = 1024

/** A fresh automerge-js value for this tagged JSON. */
export function fromTagged(Automerge, json) {
  if (Array.isArray(json)) return json.map((item) => fromTagged(Automerge, item))
  if (json === null || typeof json !== "object") return json
  const [tag] = Object.keys(json)
  switch (tag) {
    case "$date": return new Date(json.$date)
    case "$counter": return new Automerge.Counter(json.$counter)
    case "$bytes": return new Uint8Array(Buffer.from(json.$bytes, "hex"))
    case "$noise": return new Uint8Array(randomBytes(json.$noise))
    case "$int": return new Automerge.Int(json.$int)
    case "$uint": return new Automerge.Uint(json.$uint)
    case "$float": return new Automerge.Float64(json.$float)
    case "$big": return BigInt(json.$big)
    case "$scalar": return new (Automerge.ImmutableString ?? Automerge.RawString)(json.$scalar)
    default: return Object.fromEntries(Object.entries(json).map(([key, value]) => [key, fromTagged(Automerge, value)]))
  }
}

/** This automerge-js value as tagged JSON. */
export function toTagged(Automerge, value) {
  const ImmutableString = Automerge.ImmutableString ?? Automerge.RawString
  if (value instanceof Date) return { $date: value.getTime() }
  if (value instanceof Automerge.Counter) return { $counter: value.value }
  if (value instanceof ImmutableString) return { $scalar: value.val }
  if (value instanceof Uint8Array) {
    return value.length <= BYTES_SHOWN_MAX
      ? { $bytes: Buffer.from(value).toString("hex") }
      : { $sha256: createHash("sha256").update(value).digest("hex"), length: value.length }
  }
  // Which integers become bigint differs between releases of automerge-js; what fits a number is shown as one.
  if (typeof value === "bigint") return Number.isSafeInteger(Number(value)) ? Number(value) : { $big: value.toString() }
  if (Array.isArray(value)) return value.map((item) => toTagged(Automerge, item))
  if (value === null || typeof value !== "object") return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, toTagged(Automerge, item)]))
}

/** Applies edits to a document inside its change callback. */
export function applyOperations(Automerge, doc, operations) {
  for (const operation of operations) {
    const { path } = operation
    const parent = path.slice(0, -1).reduce((value, key) => value[key], doc)
    const key = path.at(-1)
    switch (operation.op) {
      case "set": parent[key] = fromTagged(Automerge, operation.value); break
      case "delete": delete parent[key]; break
      case "insert": parent[key].splice(operation.at, 0, ...operation.values.map((value) => fromTagged(Automerge, value))); break
      case "remove": parent[key].splice(operation.at, operation.count); break
      case "splice": Automerge.splice(doc, path, operation.at, operation.delete ?? 0, operation.insert ?? ""); break
      case "increment": parent[key].increment(operation.by); break
      default: throw new Error(`unknown operation ${operation.op}`)
    }
  }
}
