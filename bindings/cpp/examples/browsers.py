#!/usr/bin/env python3
"""Two browsers, each on another server process of chat.cpp, talk in one room.

    browsers.py PROGRAM PICTURE

PROGRAM is chat.cpp, compiled; PICTURE is where a picture of both is written, as PNG. Needs the URL
of a broker in CHANNEL_LAYER_TEST_AMQP, Chromium and its driver (Debian: chromium, chromium-driver)
and Python's selenium and pillow. Exit status 0 means that each browser showed what both typed.
"""

import io
import os
import secrets
import signal
import subprocess
import sys

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

SECONDS = 30


def server(program):
    """A process of the example, and where it listens."""
    process = subprocess.Popen([program, os.environ["CHANNEL_LAYER_TEST_AMQP"], "0"],
                               stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


def browser():
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage",
                     "--window-size=640,640"):
        options.add_argument(argument)
    return webdriver.Chrome(options=options,
                            service=webdriver.ChromeService("/usr/bin/chromedriver"))


def join(driver, url, room, name):
    driver.get(url)
    driver.find_element(By.ID, "room").send_keys(room)
    driver.find_element(By.ID, "name").send_keys(name)
    driver.find_element(By.CSS_SELECTOR, "#join button").click()


def say(driver, text):
    driver.find_element(By.ID, "text").send_keys(text)
    driver.find_element(By.CSS_SELECTOR, "#say button").click()


def said(driver):
    return [line.text for line in driver.find_elements(By.CSS_SELECTOR, "#said p")]


def wait_until_shown(driver, line):
    WebDriverWait(driver, SECONDS).until(lambda it: line in said(it),
                                         f"{line!r} is not shown")


def side_by_side(drivers, path):
    pictures = [Image.open(io.BytesIO(driver.get_screenshot_as_png())) for driver in drivers]
    both = Image.new("RGB", (sum(each.width for each in pictures) + 8,
                             max(each.height for each in pictures)), "grey")
    left = 0
    for each in pictures:
        both.paste(each, (left, 0))
        left += each.width + 8
    both.save(path)


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: browsers.py PROGRAM PICTURE")
    program, picture = sys.argv[1:]
    room = "room" + secrets.token_hex(3)
    names = ("Ada", "Bob")
    servers, drivers = [], []
    try:
        for _ in names:
            servers.append(server(program))
            drivers.append(browser())
        for driver, (process, url), name in zip(drivers, servers, names):
            join(driver, url, room, name)
            wait_until_shown(driver, f"{name}: has joined")
            print(f"{name} joined {room} at {url} (process {process.pid})")
        spoken = [f"{names[0]}: Hello from the first process", f"{names[1]}: And from the second"]
        for driver, line in zip(drivers, spoken):
            say(driver, line.split(": ")[1])
            for other in drivers:
                wait_until_shown(other, line)
        for driver, name in zip(drivers, names):
            print(f"{name} sees: {' | '.join(said(driver))}")
        side_by_side(drivers, picture)
    finally:
        for driver in drivers:
            driver.quit()
        for process, _ in servers:
            process.send_signal(signal.SIGTERM)
    ended = [process.wait(SECONDS) for process, _ in servers]
    print(f"the servers ended with {ended[0]} and {ended[1]}")
    return 1 if any(ended) else 0


if __name__ == "__main__":
    sys.exit(main())
