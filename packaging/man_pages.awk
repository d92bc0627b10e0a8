# Makes the man pages out of what is written once elsewhere: an overview, and one for each function.
#
#     awk -v folder=OUT -v version=0.1.0 -f man_pages.awk include/channel_layer.h README.md
#
# The conventions, functions, types and constants are the header's; the options and the example are
# README's, which tests hold against the code. Without `folder` only the names of the pages are
# printed. What the two files do not hold any more is an error, so that no page is made that lacks it.

function fail(message) {
    print "man_pages.awk: " message > "/dev/stderr"
    failed = 1
    exit 1
}

# --- roff -----------------------------------------------------------------------------------

function escaped(text) {
    gsub(/\\/, "\\e", text)
    gsub(/-/, "\\-", text)
    return text
}

# Prose: `code`, **strong**, and names of the API in bold. What stands at the start of a line and
# could be taken for a request is kept from it.
function prose(text,    out, token) {
    gsub(/\*\*/, "", text)
    while (match(text, /`[^`]*`|layer_[a-z_]*[a-z]|LAYER_[A-Z_]*[A-Z]/)) {
        token = substr(text, RSTART, RLENGTH)
        gsub(/`/, "", token)
        out = out backslashed(substr(text, 1, RSTART - 1)) "\\fB" escaped(token) "\\fR"
        text = substr(text, RSTART + RLENGTH)
    }
    return guarded(out backslashed(text))
}

function backslashed(text) {
    gsub(/\\/, "\\e", text)
    return text
}

function guarded(text) {
    return text ~ /^[.']/ ? "\\&" text : text
}

function put(text) {
    print text > page
}

# Paragraphs, one line of words each, with "" between them.
function put_paragraphs(text, first,    parts, count, i) {
    count = split(text, parts, "\n")
    for (i = 1; i <= count; i++) {
        if (parts[i] == "") {
            continue
        }
        if (!first) {
            put(".PP")
        }
        first = 0
        put(prose(parts[i]))
    }
}

function put_code(text,    lines, count, i) {
    count = split(text, lines, "\n")
    put(".PP")
    put(".nf")
    put(".ft B")
    for (i = 1; i <= count; i++) {
        put(lines[i] == "" ? "\\&" : guarded(escaped(lines[i])))
    }
    put(".ft R")
    put(".fi")
}

function begin_page(name, line) {
    page = folder "/" name ".3"
    put(".\\\" Made by packaging/man_pages.awk from the header and the README: do not edit.")
    put(".TH " toupper(name) " 3 \"" date "\" \"channel\\-layer " version "\" \"C library\"")
    put(".SH NAME")
    put(name " \\- " line)
    put(".SH SYNOPSIS")
}

# The first sentence, for a line by itself.
function first_sentence(text) {
    sub(/\n.*/, "", text)
    gsub(/`/, "", text)
    if (match(text, /\. /)) {
        text = substr(text, 1, RSTART - 1)
    }
    sub(/\.$/, "", text)
    return text
}

function uncapitalised(text) {
    return substr(text, 1, 1) ~ /[A-Z]/ && substr(text, 2, 1) ~ /[a-z ]/ ? \
        tolower(substr(text, 1, 1)) substr(text, 2) : text
}

# Adds a line of words to paragraphs; an empty one begins the next.
function joined(text, line) {
    sub(/^ +/, "", line)
    if (line == "") {
        return text ~ /\n$/ || text == "" ? text : text "\n"
    }
    return text == "" || text ~ /\n$/ ? text line : text " " line
}

# --- the header -----------------------------------------------------------------------------

FILENAME ~ /\.h$/ && /^ \* CONVENTIONS/ { in_conventions = 1; next }
FILENAME ~ /\.h$/ && in_conventions {
    if (/^ \*\//) {
        in_conventions = 0
    } else {
        conventions = joined(conventions, substr($0, 4))
    }
    next
}

FILENAME ~ /\.h$/ && /^enum layer_[a-z_]*_t/ {
    enum = $2
    enum_count++
    enum_name[enum_count] = enum
    enum_text[enum_count] = comment
    comment = ""
    next
}
FILENAME ~ /\.h$/ && enum != "" {
    if (/^};/) {
        enum = ""
        comment = ""
    } else if (/^ *\/\//) {
        sub(/^ *\/\/ ?/, "")
        comment = joined(comment, $0)
    } else if (match($0, /LAYER_[A-Z_]+ = [0-9]+/)) {
        constant = substr($0, RSTART, RLENGTH)
        members[enum_count] = members[enum_count] constant "\t" comment "\n"
        comment = ""
    } else {
        comment = ""
    }
    next
}

FILENAME ~ /\.h$/ && declaration == "" && /^\/\// {
    sub(/^\/\/ ?/, "")
    comment = joined(comment, $0)
    next
}
FILENAME ~ /\.h$/ && declaration == "" && /^#define LAYER_[A-Z_]+ [0-9]+$/ && comment != "" {
    macros = macros $2 "\t" comment "\n"
    comment = ""
    next
}
FILENAME ~ /\.h$/ && (declaration != "" || /^typedef .*\(\*layer_|^LAYER_MUST_USE|^[a-z].*[ *]layer_[a-z_]*\(/) {
    if ($0 == "LAYER_MUST_USE") {
        next
    }
    sub(/^LAYER_MUST_USE /, "")
    declaration = declaration (declaration == "" ? "" : "\n") $0
    if (!/;$/) {
        next
    }
    if (declaration ~ /^typedef/) {
        match(declaration, /\(\*layer_[a-z_]*\)/)
        type_count++
        type_name[type_count] = substr(declaration, RSTART + 2, RLENGTH - 3)
        type_code[type_count] = declaration
        type_text[type_count] = comment
    } else {
        match(declaration, /layer_[a-z_]*\(/)
        name = substr(declaration, RSTART, RLENGTH - 1)
        function_count++
        function_name[function_count] = name
        function_code[function_count] = declaration
        function_text[function_count] = comment
        if (comment == "") {
            fail("the header says nothing of " name)
        }
    }
    declaration = ""
    comment = ""
    next
}
FILENAME ~ /\.h$/ { comment = ""; next }

# --- README ---------------------------------------------------------------------------------

/^<!-- options -->/ { in_options = 1; next }
/^<!-- end of options -->/ { in_options = 0 }
in_options && /^\| `/ {
    row = $0
    sub(/^\| /, "", row)
    sub(/ \|$/, "", row)
    if (split(row, cells, / \| /) != 4) {
        fail("this row of the options has not four cells: " row)
    }
    option_count++
    for (i = 1; i <= 4; i++) {
        option[option_count, i] = cells[i]
    }
}
/^## A program/ { in_program = 1; next }
in_program && /^```c$/ { in_code = 1; next }
in_code && /^```$/ { in_code = 0; in_program = 0; next }
in_code { example = example (example == "" ? "" : "\n") $0 }
/^A \*\*channel layer\*\*/ { in_summary = 1 }
in_summary && /^$/ { in_summary = 0 }
in_summary { summary = joined(summary, $0) }

# --- the pages ------------------------------------------------------------------------------

function constants_of(i,    lines, count, j, halves) {
    count = split(members[i], lines, "\n")
    for (j = 1; j < count; j++) {
        split(lines[j], halves, "\t")
        put(".TP")
        put("\\fB" escaped(halves[1]) "\\fR")
        put(prose(halves[2]))
    }
}

function overview(    i, lines, count, halves) {
    begin_page("channel_layer", "named channels and groups between server processes, over RabbitMQ")
    put(".nf")
    put(".B #include <channel_layer.h>")
    put(".PP")
    put("\\fBcc\\fR \\fIprogram.c\\fR \\fB$(pkg\\-config \\-\\-cflags \\-\\-libs channel_layer)\\fR")
    put(".fi")
    put(".SH DESCRIPTION")
    put_paragraphs(summary, 1)
    put(".SH FUNCTIONS")
    put("Each has a page of its own.")
    for (i = 1; i <= function_count; i++) {
        put(".TP")
        put(".BR " function_name[i] " (3)")
        put(prose(first_sentence(function_text[i])) ".")
    }
    put(".SH CONVENTIONS")
    put_paragraphs(conventions, 1)
    put(".SH OPTIONS")
    put("Set by")
    put(".BR layer_config_set (3).")
    put("Values are text.")
    for (i = 1; i <= option_count; i++) {
        put(".TP")
        put(prose(option[i, 1]))
        put(prose(option[i, 4]))
        put(".br")
        put("Default: " prose(option[i, 2]) ".")
        put(".br")
        put("Allowed: " prose(option[i, 3]) ".")
    }
    put(".SH CALLBACKS")
    for (i = 1; i <= type_count; i++) {
        put(".SS " type_name[i])
        put_paragraphs(type_text[i], 1)
        put_code(type_code[i])
    }
    put(".SH CONSTANTS")
    count = split(macros, lines, "\n")
    for (i = 1; i < count; i++) {
        split(lines[i], halves, "\t")
        put(".TP")
        put("\\fB" halves[1] "\\fR")
        put(prose(halves[2]))
    }
    for (i = 1; i <= enum_count; i++) {
        put(".SS " enum_name[i])
        put_paragraphs(enum_text[i], 1)
        constants_of(i)
    }
    put(".SH EXAMPLES")
    put("A channel joins a group, sends to it and receives what it sent.")
    put_code(example)
    put(".SH SEE ALSO")
    put(".BR layer_new (3),")
    put(".BR layer_receive (3),")
    put(".BR layer_send (3),")
    put(".BR pkg\\-config (1)")
    close(page)
}

function page_of(i,    text) {
    text = function_text[i]
    begin_page(function_name[i], uncapitalised(escaped(first_sentence(text))))
    put(".nf")
    put(".B #include <channel_layer.h>")
    put(".fi")
    put_code(function_code[i])
    put(".SH DESCRIPTION")
    put_paragraphs(text, 1)
    put(".PP")
    put("What holds for all functions, as of errors, memory, threads, callbacks and forks, is in")
    put(".BR channel_layer (3).")
    put(".SH SEE ALSO")
    put(".BR channel_layer (3)")
    close(page)
}

END {
    if (failed) {
        exit 1
    }
    if (function_count < 40 || type_count < 5 || enum_count < 5 || conventions == "") {
        fail("the header is not written as this program reads it")
    }
    print "channel_layer.3"
    for (i = 1; i <= function_count; i++) {
        print function_name[i] ".3"
    }
    if (folder == "") {
        exit
    }
    if (option_count < 20 || example == "" || summary == "" || version == "") {
        fail("README.md has no options, example or summary, or there is no version")
    }
    overview()
    for (i = 1; i <= function_count; i++) {
        page_of(i)
    }
}
