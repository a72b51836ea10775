// The endpoint behind this page: what it is asked, and its events as they come.
const endpoint = {
  async about(model) {
    try {
      const response = await fetch(`/live/about?model=${encodeURIComponent(model)}`)
      return await response.json()
    } catch (error) {
      return { state: "failed", sentence: "The dashboard does not answer; is it still running?" }
    }
  },
  // Events of one prompt, given to `tell`; always ends with one of name end or refused. `signal` breaks it off.
  async run(asked, tell, signal) {
    let last = null
    const told = (event) => { last = event.event; tell(event) }
    try {
      const response = await fetch("/live/run", { method: "POST", body: JSON.stringify(asked), signal })
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
      for (let rest = ""; ;) {
        const { done, value } = await reader.read()
        if (done) break
        const pieces = (rest + value).split("\n\n")
        rest = pieces.pop()
        for (const piece of pieces) if (piece.startsWith("data: ")) told(JSON.parse(piece.slice(6)))
      }
    } catch (error) {
      if (signal.aborted) return
    }
    if (last !== "end" && last !== "refused") told({ event: "refused", sentence: "The answer broke off; run the prompt once more." })
  },
  stop: (uid) => fetch(`/live/stop/${uid}`, { method: "POST" }).catch(() => {}),
  async keep(uid, name) {
    try {
      const response = await fetch(`/live/keep/${uid}`, { method: "POST", body: JSON.stringify({ name }) })
      return await response.json()
    } catch (error) {
      return { sentence: "The dashboard does not answer; is it still running?" }
    }
  },
}
