#!/usr/bin/env python3
"""Looks at the built pages in a real browser: phone, tablet and desktop, light and dark.

    browser.py PAGES PICTURES [PAGE...]

PAGES is the folder of the HTML, PICTURES where a picture of each PAGE (all pages, if none is named)
is written. Needs Chromium and its driver (Debian: chromium, chromium-driver) and Python's selenium.
Exit status 1, and a line for each, where a page is wider than the window, text is smaller than 12
pixels, or its contrast is below what WCAG asks for (AA: 4.5, for large text 3).
"""

import sys
from pathlib import Path

from selenium import webdriver

SIZES = {"phone": (390, 844), "tablet": (820, 1180), "desktop": (1280, 900)}
SCHEMES = ("light", "dark")

# The colours of text and of what is painted behind it, as the browser computes them.
LOOK = r"""
const seen = new Map();
function parse(text) {
    const canvas = parse.canvas ||= new OffscreenCanvas(1, 1).getContext("2d",
        {willReadFrequently: true});
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
}
function over(top, under) {
    return top.slice(0, 3).map((c, i) => c * top[3] + under[i] * (1 - top[3])).concat(1);
}
function luminance(colour) {
    const [r, g, b] = colour.map(c => (c /= 255) <= 0.03928 ? c / 12.92
        : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function behind(element) {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
        const colour = parse(getComputedStyle(at).backgroundColor);
        if (colour[3] > 0) layers.push(colour);
        if (colour[3] === 1) break;
    }
    return layers.reduceRight((under, top) => over(top, under), [255, 255, 255, 1]);
}
const wrong = [];
const root = document.documentElement;
if (root.scrollWidth > root.clientWidth) {
    const wide = [...document.querySelectorAll("main *, article *")].filter(
        e => e.getBoundingClientRect().right > root.clientWidth + 1).slice(0, 3);
    wrong.push(`is ${root.scrollWidth} wide: ` + wide.map(e => e.outerHTML.slice(0, 80)).join(" "));
}
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node; node = walker.nextNode();) {
    const element = node.parentElement;
    if (!node.data.trim() || element.closest("script, style, noscript, template")) continue;
    const style = getComputedStyle(element);
    const box = element.getBoundingClientRect();
    if (!element.checkVisibility({visibilityProperty: true, opacityProperty: true})
        || box.width <= 1 || box.height <= 1) continue;
    const size = parseFloat(style.fontSize);
    const under = behind(element);
    const text = luminance(over(parse(style.color), under));
    const ground = luminance(under);
    const contrast = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
    const large = size >= 24 || (size >= 18.66 && parseInt(style.fontWeight) >= 700);
    const sample = node.data.trim().slice(0, 30);
    const kind = `${element.tagName}.${element.className}`;
    if (size < 12) seen.set("small " + kind, `${size.toFixed(1)} px: ${kind} ${sample}`);
    if (contrast < (large ? 3 : 4.5)) {
        seen.set("pale " + kind, `contrast ${contrast.toFixed(2)}: ${kind} ${sample}`);
    }
}
return wrong.concat([...seen.values()]);
"""


def browser():
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage",
                     "--hide-scrollbars", "--allow-file-access-from-files"):
        options.add_argument(argument)
    return webdriver.Chrome(options=options,
                            service=webdriver.ChromeService("/usr/bin/chromedriver"))


def emulate(driver, size, scheme):
    width, height = SIZES[size]
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": width, "height": height, "deviceScaleFactor": 1, "mobile": size != "desktop"})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {
        "features": [{"name": "prefers-color-scheme", "value": scheme},
                     {"name": "prefers-reduced-motion", "value": "reduce"}]})


def main():
    if len(sys.argv) < 3:
        sys.exit("usage: browser.py PAGES PICTURES [PAGE...]")
    pages, pictures = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    names = sys.argv[3:] or sorted(str(path.relative_to(pages)) for path in pages.rglob("*.html"))
    pictures.mkdir(parents=True, exist_ok=True)
    found = 0
    driver = browser()
    try:
        for size in SIZES:
            for scheme in SCHEMES:
                emulate(driver, size, scheme)
                for name in names:
                    path, _, anchor = name.partition("#")
                    driver.get("about:blank")
                    driver.get(f"{(pages / path).as_uri()}#{anchor}")
                    driver.execute_script("document.querySelector(':target')?.scrollIntoView("
                                          "{behavior: 'instant'})")
                    picture = f"{path.removesuffix('.html').replace('/', '-')}-{anchor}".rstrip("-")
                    driver.save_screenshot(str(pictures / f"{picture}-{size}-{scheme}.png"))
                    for line in driver.execute_script(LOOK):
                        found += 1
                        print(f"{name}, {size}, {scheme}: {line}")
    finally:
        driver.quit()
    print(f"{len(names)} pages, each in {len(SIZES) * len(SCHEMES)} forms: {found} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
