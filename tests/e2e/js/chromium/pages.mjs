// A web server for a directory, as any host of static files is.
//
// Owns: the types of the files of a build. Must not: serve anything outside of the directory.
// Next: main.mjs.
import { readFile } from "node:fs/promises"
import { createServer } from "node:http"
import { extname, join, normalize } from "node:path"

const TYPES = {
  ".css": "text/css",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
  ".webmanifest": "application/manifest+json",
}

/** Serves `directory` on loopback, and resolves to host and port. */
export function servePages(directory) {
  const server = createServer(async (request, response) => {
    const path = normalize(new URL(request.url, "http://here").pathname)
    const file = join(directory, path.endsWith("/") ? `${path}index.html` : path)
    try {
      const body = await readFile(file)
      response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream", "cache-control": "no-store" })
      response.end(body)
    } catch {
      response.writeHead(404).end()
    }
  })
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve({ host: "127.0.0.1", port: server.address().port })))
}
