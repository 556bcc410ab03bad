// The page's own files, kept for when there is no network.
//
// Owns: the cache that public/sw.js answers from. Must not: keep anything of a document; those are in IndexedDB.
// Next: ../public/sw.js.

/** Keeps this page's files and asks the browser not to throw its data away. */
export async function keepForOffline(): Promise<void> {
  // Asked for only; a browser that says no may remove the data when the disk is full.
  await navigator.storage?.persist?.()
  // Service workers exist on https and localhost only; elsewhere the page needs the network to open, the data does not.
  if (!import.meta.env.PROD || !("serviceWorker" in navigator)) return
  await navigator.serviceWorker.register("./sw.js")
  const page = location.origin + location.pathname
  const files = performance.getEntriesByType("resource").map((entry) => entry.name)
  const cache = await caches.open("files")
  const wanted = [page, ...files.filter((file) => file.startsWith(location.origin) && !file.includes("#"))]
  await Promise.all(wanted.map((file) => cache.add(file)))
  for (const { url } of await cache.keys()) {
    if (!wanted.includes(url)) await cache.delete(url)
  }
  document.documentElement.dataset.offline = "ready"
}
