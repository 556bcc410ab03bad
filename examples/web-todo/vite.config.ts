// Next: package.json.
import { defineConfig } from "vite"

export default defineConfig({
  // Relative addresses: the build runs at any path of any server.
  base: "./",
  // automerge's WebAssembly is one large file whatever is done about it.
  build: { chunkSizeWarningLimit: 1000 },
})
