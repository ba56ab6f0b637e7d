//! `{% generation %}` blocks, which mark what the assistant said.
//!
//! `transformers` renders what is inside; `minijinja` knows no such tag. Both tags become those of a `with` block
//! without assignments, which renders the same and, as the original, keeps what is set inside to itself.

/// The template with every `generation` tag replaced, and nothing else changed.
pub(super) fn without_tags(source: &str) -> String {
    let (mut result, mut rest, mut raw) = (String::with_capacity(source.len()), source, false);
    while let Some(at) = rest.find('{') {
        let (before, tag) = rest.split_at(at);
        result.push_str(before);
        let kind = tag.as_bytes().get(1);
        let end = match kind {
            Some(b'#') if !raw => tag.find("#}").map(|at| at + 2),
            Some(b'{') if !raw => expression_end(tag, "}}"),
            Some(b'%') => expression_end(tag, "%}"),
            _ => Some(1),
        };
        let (tag, after) = tag.split_at(end.unwrap_or(tag.len()));
        let name = if kind == Some(&b'%') { tag_name(tag) } else { "" };
        match name {
            "raw" => raw = true,
            "endraw" => raw = false,
            _ => {}
        }
        match name {
            "generation" if !raw => result.push_str(&tag.replacen("generation", "with", 1)),
            "endgeneration" if !raw => result.push_str(&tag.replacen("endgeneration", "endwith", 1)),
            _ => result.push_str(tag),
        }
        rest = after;
    }
    result.push_str(rest);
    result
}

/// The word of a tag that has no other, `""` of every other tag.
fn tag_name(tag: &str) -> &str {
    let inner = tag.strip_prefix("{%").and_then(|inner| inner.strip_suffix("%}")).unwrap_or_default();
    inner.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim()
}

/// Where an expression ends, not counting `close` inside of a quoted text.
fn expression_end(tag: &str, close: &str) -> Option<usize> {
    let (mut quote, mut escaped) = (None, false);
    for (at, byte) in tag.bytes().enumerate().skip(2) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if byte == b'\\' => escaped = true,
            Some(open) if byte == open => quote = None,
            Some(_) => {}
            None if matches!(byte, b'\'' | b'"') => quote = Some(byte),
            None if tag.as_bytes()[at..].starts_with(close.as_bytes()) => return Some(at + close.len()),
            None => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::without_tags;

    #[test]
    fn generation_tags_become_with_tags_and_keep_their_white_space_control() {
        let source = "a {%- generation -%} b {% endgeneration +%}{%generation%}{%endgeneration%}";
        assert_eq!(without_tags(source), "a {%- with -%} b {% endwith +%}{%with%}{%endwith%}");
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        for source in [
            "{{ '{% generation %}' }}",
            "{# {% generation %} #}",
            "{% raw %}{% generation %}{{ '{% endraw %}",
            "{% if generation %}{% set x = '%} {% generation %}' %}",
            "{ {% {{ {# { é",
            "{{ \"\\\" }}{% generation %}\" }}",
            "{",
        ] {
            assert_eq!(without_tags(source), source);
        }
    }
}
