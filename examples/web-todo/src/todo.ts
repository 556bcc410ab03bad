// What a list is, and every change that is made to it.
//
// Owns: the document's shape. Must not: touch the page or the network.
// Next: list-view.ts.
import { next as Automerge } from "@automerge/automerge/slim"

export type Item = { id: string; text: string; done: boolean }
export type List = { title: string; items: Item[] }

export const emptyList = (): List => ({ title: "", items: [] })

export function addItem(list: List, text: string): void {
  list.items.push({ id: newId(), text, done: false })
}

/** Writes only what differs, so that two people who type in one text at a time both keep what they typed. */
export function writeTitle(list: List, text: string): void {
  Automerge.updateText(list, ["title"], text)
}

export function writeItem(list: List, id: string, text: string): void {
  const index = indexOf(list, id)
  if (index >= 0) Automerge.updateText(list, ["items", index, "text"], text)
}

export function tickItem(list: List, id: string, done: boolean): void {
  const index = indexOf(list, id)
  if (index >= 0) list.items[index].done = done
}

export function removeItem(list: List, id: string): void {
  const index = indexOf(list, id)
  if (index >= 0) list.items.splice(index, 1)
}

export function removeDone(list: List): void {
  for (let index = list.items.length - 1; index >= 0; index--) {
    if (list.items[index].done) list.items.splice(index, 1)
  }
}

/** Where an item is now; others may have moved or removed it since the page was drawn. */
export function indexOf(list: List, id: string): number {
  return list.items.findIndex((item) => item.id === id)
}

// Not randomUUID, which browsers keep from pages without https: a phone in the same network has none.
function newId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("")
}
