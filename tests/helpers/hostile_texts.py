"""Texts that would do something if a page took them for more than text: run a script, ask for an address, hide, move or
blow up what stands beside them.
"""

#: "¤" becomes the text's own number. What runs sets `window.hacked`; what asks for something asks for port 9 of this
#: machine.
_SCRIPTS = [
    "<script>window.hacked=¤</script>",
    '</script><script src="http://127.0.0.1:9/¤"></script>',
    '<img src=x onerror="window.hacked=¤">',
    '<img src="http://127.0.0.1:9/¤">',
    '<img src="http://127.0.0.1:9/¤?unclosed',
    "<img src='http://127.0.0.1:9/¤?unclosed",
    '"><svg onload="window.hacked=¤">',
    "'><svg><script>window.hacked=¤</script></svg>",
    "<svg><animate onbegin=window.hacked=¤ attributeName=x dur=1s>",
    '<iframe srcdoc="<script>parent.hacked=¤</script>"></iframe>',
    '<iframe src="javascript:parent.hacked=¤"></iframe>',
    '<a href="javascript:window.hacked=¤" autofocus onfocus="window.hacked=¤">a link ¤</a>',
    "[a link](javascript:window.hacked=¤) <javascript:window.hacked=¤>",
    "![a picture](http://127.0.0.1:9/¤)",
    '<style>@import "http://127.0.0.1:9/¤"; .swb { display: none }</style>',
    "</style><style>* { background: url(http://127.0.0.1:9/¤) }</style>",
    '<div style="position:fixed;inset:0;background:url(http://127.0.0.1:9/¤)">over everything ¤</div>',
    '<link rel=stylesheet href="http://127.0.0.1:9/¤">',
    '<meta http-equiv=refresh content="0;url=http://127.0.0.1:9/¤">',
    '<base href="http://127.0.0.1:9/¤/">',
    '<object data="http://127.0.0.1:9/¤"></object><embed src="http://127.0.0.1:9/¤">',
    (
        '<form action="http://127.0.0.1:9/¤"><input autofocus onfocus="window.hacked=¤"><button>Start'
        " training</button></form>"
    ),
    "<template><script>window.hacked=¤</script></template>${window.hacked=¤}`${window.hacked=¤}`",
    '{{constructor.constructor("window.hacked=¤")()}} {0} {} {__class__} %s %(x)s ¤',
    '<details open ontoggle="window.hacked=¤"><summary>x</summary></details>',
    '<b onmouseover="window.hacked=¤">over me</b><br><i>and</i><sup>me</sup> ¤',
    (
        '<a href="http://127.0.0.1:9/¤" target="_blank">a link of plotly</a> <a'
        ' href="javascript:window.hacked=¤">another</a>'
    ),
    (
        r"$\href{javascript:window.hacked=¤}{x}$ \(\require{html}\style{background:url(http://127.0.0.1:9/¤)}{x}\)"
        r" $$\unicode{x}¤$$"
    ),
    "<!-- <script>window.hacked=¤</script>",
    "--><script>window.hacked=¤</script><!--",
    "<![CDATA[<script>window.hacked=¤</script>]]>",
    "&lt;script&gt;window.hacked=¤&lt;/script&gt; &#60;img src=x onerror=window.hacked=¤&#62; &amp;lt; &nbsp;",
    '" onfocus="window.hacked=¤" autofocus onmouseover="window.hacked=¤" x="',
    "' onfocus='window.hacked=¤' autofocus onmouseover='window.hacked=¤' x='",
    "<plaintext> ¤",
    "</textarea><textarea></textarea></select></option><script>window.hacked=¤</script>",
    "</pre></code></td></tr></table></section></div></div></div></div></title><script>window.hacked=¤</script>",
    "data:text/html,<script>window.hacked=¤</script>",
    "<video><source onerror=window.hacked=¤></video><audio src=x onerror=window.hacked=¤>",
    '<math><mtext><table><mglyph><style><img src=x onerror="window.hacked=¤"></style></mglyph></table></mtext></math>',
    "\x1b[31mred ¤\x1b[0m \x1b]8;;http://127.0.0.1:9/¤\x07a link of a terminal\x1b]8;;\x07",
    "__proto__ constructor toString ¤",
]
_LAYOUT = [
    "control characters \x01\x02\x08\x0b\x0c\x7f\x85\x9f of ¤",
    "\u202eright to left \u202d\u2066\u2067\u200f¤ and never back",
    "zero\u200bwidth\u200d\ufeff\u00ad\u2060 of ¤",
    "lines\u2028of\u2029unicode\r\nand\rof ¤",
    "👩\u200d👩\u200d👧\u200d👦🏳️\u200d🌈👍🏿 ¤",
    "Z" + "".join(chr(0x300 + n % 0x70) for n in range(600)) + " ¤",
    "﷽" * 300 + " ¤",
    "unbroken¤" + "W" * 20_000,
    "\n".join(f"line {n} of ¤" for n in range(500)),
]


def _numbered(texts, first):
    return [text.replace("¤", str(number)) for number, text in enumerate(texts, first)]


#: Short ones, which stand well in one line.
SHORT = _numbered(_SCRIPTS, 101)
LAYOUT = _numbered(_LAYOUT, 201)
TEXTS = SHORT + LAYOUT
#: All short ones in one text, for places where only one text is shown.
TOGETHER = "\n".join(SHORT)
#: As much as a name of a file or folder may hold: 255 bytes, no "/".
NAME = """<img src=x onerror=window.hacked=1>"><svg onload='window.hacked=2'>$x$ [a](javascript:window.hacked=3) &lt;b&gt; {0} \u202e <img src=\\\\127.0.0.1:9\\x>"""


def readable(text):
    """What of a text can be compared with what a page holds: without control characters, white space as single
    spaces.
    """
    text = text.replace("\ufffd", "").replace("\ufeff", " ")  # white space to JavaScript, none to Python
    return " ".join(
        "".join(
            character
            for character in text
            if character.isspace() or (ord(character) >= 32 and not 127 <= ord(character) < 160)
        ).split()
    )
