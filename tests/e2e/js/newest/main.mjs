// The driver with the newest stable packages. Next: ../driver.mjs.
import * as Automerge from "@automerge/automerge"
import { Presence, Repo } from "@automerge/automerge-repo"
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"
import { serve } from "../driver.mjs"

serve({ Automerge, Presence, Repo, WebSocketClientAdapter })
