"""Dark and light, with the same names for the same meanings."""

from __future__ import annotations

from textual.theme import Theme

THEMES = (
    Theme(
        name="dark",
        dark=True,
        primary="#6cb6ff",
        secondary="#76d7c4",
        accent="#f0c05a",
        error="#ff7b72",
        warning="#e3b341",
        success="#63c174",
        foreground="#e6e6e6",
        background="#14161a",
        surface="#1c1f25",
        panel="#262a32",
        variables={
            "text-muted": "#9aa3af",
            "boost-cursor": "#31435c",
            "on-error": "#14161a",
            "heat1": "#1d2a3a",
            "heat2": "#22405f",
            "heat3": "#2a5c8f",
            "heat4": "#2f74bb",
        },
    ),
    Theme(
        name="light",
        dark=False,
        primary="#0b5cad",
        secondary="#0f6b5c",
        accent="#8a4b00",
        error="#b3141d",
        warning="#7d5700",
        success="#1c6b2c",
        foreground="#1b1f24",
        background="#fbfbf9",
        surface="#f0f0ec",
        panel="#e3e3de",
        variables={
            "text-muted": "#5c646f",
            "boost-cursor": "#c9ddf2",
            "on-error": "#ffffff",
            "heat1": "#e3edf7",
            "heat2": "#c2d9f0",
            "heat3": "#93bde4",
            "heat4": "#69a4d8",
        },
    ),
)
