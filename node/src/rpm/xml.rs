//! XML as a text that grows: elements, attributes, and nothing that a reader would stumble over.

/// What is written so far.
#[derive(Debug, Default)]
pub(super) struct Xml(String);

/// Text of a package's header without what means something in XML, or may not stand there.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' => out.push(c),
            '\u{fffe}' | '\u{ffff}' => {}
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

impl Xml {
    /// A document that begins with this element, which the caller closes.
    pub(super) fn document(name: &str, attributes: &[(&str, &str)]) -> Self {
        let mut out = Self("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned());
        out.open(name, attributes);
        out
    }

    fn tag(&mut self, name: &str, attributes: &[(&str, &str)], end: &str) {
        self.0.push('<');
        self.0.push_str(name);
        for (key, value) in attributes {
            self.0.push_str(&format!(" {key}=\"{}\"", escaped(value)));
        }
        self.0.push_str(end);
    }

    pub(super) fn open(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.tag(name, attributes, ">\n");
    }

    pub(super) fn close(&mut self, name: &str) {
        self.0.push_str(&format!("</{name}>\n"));
    }

    /// An element without content.
    pub(super) fn empty(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.tag(name, attributes, "/>\n");
    }

    /// An element with a text.
    pub(super) fn text(&mut self, name: &str, attributes: &[(&str, &str)], text: &str) {
        self.tag(name, attributes, ">");
        self.0.push_str(&escaped(text));
        self.close(name);
    }

    pub(super) fn finish(mut self, name: &str) -> String {
        self.close(name);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a header smuggles in stays text.
    #[test]
    fn text_stays_text() {
        let mut xml = Xml::document("a", &[("k", "\"<x>\"")]);
        xml.text("b", &[], "1 < 2 &\u{1b}[0m</b><package>");
        assert_eq!(
            xml.finish("a"),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a k=\"&quot;&lt;x&gt;&quot;\">\n\
             <b>1 &lt; 2 &amp;[0m&lt;/b&gt;&lt;package&gt;</b>\n</a>\n"
        );
    }
}
