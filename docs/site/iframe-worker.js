// Browsers start no workers for pages opened from the disk; there an invisible frame does the work of the search.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      frame.srcdoc = "<body></body>"
      this.frame = frame
      this.inside = new Promise((resolve) => {
        frame.onload = () => {
          const inside = frame.contentWindow
          const load = (address) => new Promise((done) => {
            const script = inside.document.createElement("script")
            script.src = address
            script.onload = done
            inside.document.body.append(script)
          })
          inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }))
          inside.importScripts = (...addresses) => Promise.all(addresses.map(load))
          load(url).then(() => resolve(inside))
        }
      })
      document.body.append(frame)
    }

    postMessage(data) {
      this.inside.then((inside) => inside.dispatchEvent(new MessageEvent("message", { data })))
    }

    terminate() {
      this.frame.remove()
    }
  }
}
