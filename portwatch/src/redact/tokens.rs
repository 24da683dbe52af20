//! Secrets that are recognized by their own format, whatever their name is.

/// How they begin, how many characters follow at least. After `eyJ` (the beginning of
/// any JSON object in base64) come JSON web tokens.
const FORMS: [(&str, usize); 24] = [
    ("eyJ", 17),
    ("AKIA", 16),
    ("ASIA", 16),
    ("ABIA", 16),
    ("ACCA", 16),
    ("ghp_", 20),
    ("gho_", 20),
    ("ghu_", 20),
    ("ghs_", 20),
    ("ghr_", 20),
    ("github_pat_", 20),
    ("glpat-", 16),
    ("xoxa-", 10),
    ("xoxb-", 10),
    ("xoxp-", 10),
    ("xoxr-", 10),
    ("xoxs-", 10),
    ("sk_live_", 16),
    ("rk_live_", 16),
    ("sk-", 20),
    ("AIza", 30),
    ("hvs.", 20),
    ("npm_", 30),
    ("dckr_pat_", 16),
];

/// Returns the length of the secret that `text` begins with; `None` if it begins with none.
/// Call it only at the beginning of a word.
pub fn length(text: &str) -> Option<usize> {
    /// Limit of the search for a digit: words of a language have none (`sk-learn-…`).
    const DIGIT_WITHIN: usize = 64;
    let (form, least) = FORMS.iter().find(|(form, _)| text.starts_with(form))?;
    // Only a few bytes are read before a secret is recognized, and all bytes of a secret are
    // removed, so the time is linear in the text's length.
    let beginning = text.as_bytes().get(..form.len() + least)?;
    let is_word = || !text.bytes().take(DIGIT_WITHIN).any(|byte| byte.is_ascii_digit());
    if !beginning.iter().all(|byte| is_part(*byte)) || (*form == "sk-" && is_word()) {
        return None;
    }
    Some(text.bytes().take_while(|byte| is_part(*byte)).count())
}

/// Returns whether one of them may begin in `text`.
pub fn may_begin_in(text: &str) -> bool {
    FORMS.iter().any(|(form, _)| text.contains(form))
}

/// Returns whether a byte may be in such a secret: base64, of both kinds, and the dots between
/// a token's parts.
pub fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-.+/=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_have_a_length() {
        assert_eq!(length("AKIAIOSFODNN7EXAMPLE,x"), Some(20));
        assert_eq!(length("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_ "), Some(42));
        assert_eq!(length("AKIA"), None);
        assert_eq!(length("sk-learn-random-forest-server"), None);
        assert_eq!(length(""), None);
    }
}
