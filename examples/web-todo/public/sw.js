// Lets the page open without a network.
//
// Owns: nothing; the page puts its own files into the cache (src/offline.ts).
// Must not: answer from the cache what the network can answer, so a new build is seen at once.
const here = new URL("./", self.location.href)

self.addEventListener("install", () => self.skipWaiting())
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()))
self.addEventListener("fetch", (event) => {
  const { method, url } = event.request
  if (method === "GET" && url.startsWith(here.href)) event.respondWith(answer(event.request))
})

async function answer(request) {
  try {
    return await fetch(request)
  } catch (error) {
    const kept = await caches.match(request, { ignoreSearch: request.mode === "navigate" })
    if (kept) return kept
    throw error
  }
}
