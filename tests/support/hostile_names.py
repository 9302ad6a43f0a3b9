"""Names that would lead out of a folder, are no names, or are too long."""

HOSTILE_NAMES = (
    *("/etc/evil", "../../evil", "a/../../evil", "a/b", "..", ".", "", "~", "-rf", ".hidden", "C:\\evil"),
    *("nul\0byte", "new\nline", "re\rturn", "\u202egnp.exe", "\u200bzero", "tab\there", "ünï", "u\u0308ni"),
    *("猫", "犬", "a b", "a  b", "a-b ", "x" * 300, "x" * 301, "é" * 200, "half \ud800"),
)
