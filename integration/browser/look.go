package browser

// TooWide are elements that end beyond the screen or their section, and the page itself
// where it is wider.
func (p *Page) TooWide() (out []string) {
	p.browser.tb.Helper()
	p.Eval(`(() => {
		const out = [], {scrollWidth: wide, clientWidth: screen} = document.documentElement;
		if (wide > screen) out.push("the page: " + wide + " of " + screen);
		for (const e of document.body.querySelectorAll("*")) {
			const box = e.getBoundingClientRect();
			const most = e.closest("section")?.getBoundingClientRect().right ?? screen;
			if (box.width && box.right > Math.min(most, screen) + 0.5) out.push(e.outerHTML.slice(0, 100) + ": to " + box.right);
		}
		return out;
	})()`, &out)
	return out
}

// Faint are texts that stand out from what is behind them by less than 4.5 to 1 (WCAG 2.2,
// success criterion 1.4.3).
func (p *Page) Faint() (out []string) {
	p.browser.tb.Helper()
	p.Eval(`(() => {
		const parts = (c) => c.match(/[\d.]+/g).map(Number);
		const light = (c) => {
			const [r, g, b] = c.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
			return 0.2126 * r + 0.7152 * g + 0.0722 * b;
		};
		const over = (top, share, below) => top.slice(0, 3).map((v, i) => v * share + below[i] * (1 - share));
		const ground = (e) => {
			if (!e) return [255, 255, 255];
			const c = parts(getComputedStyle(e).backgroundColor), share = c[3] ?? 1;
			return share === 1 ? c.slice(0, 3) : over(c, share, ground(e.parentElement));
		};
		const out = new Set(), walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
		while (walk.nextNode()) {
			const e = walk.currentNode.parentElement, text = walk.currentNode.data.trim();
			if (!text || !e.checkVisibility() || ["SCRIPT", "STYLE", "NOSCRIPT"].includes(e.tagName) || e.namespaceURI.endsWith("svg")) continue;
			const style = getComputedStyle(e), below = ground(e), c = parts(style.color);
			let share = c[3] ?? 1;
			for (let at = e; at; at = at.parentElement) share *= Number(getComputedStyle(at).opacity);
			const [a, b] = [light(over(c, share, below)), light(below)].sort((x, y) => y - x);
			const ratio = (a + 0.05) / (b + 0.05);
			if (ratio < 4.5) out.add(ratio.toFixed(2) + ": " + e.tagName + "." + e.className + " " + text.slice(0, 40));
		}
		return [...out];
	})()`, &out)
	return out
}
