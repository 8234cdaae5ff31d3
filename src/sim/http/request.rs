//! A request.

use crate::sim::http::query;

/// A request, read whole.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `GET`.
    pub method: String,
    /// The path as it came, percent-encoded.
    pub path: String,
    /// What stands behind the question mark, as it came.
    pub query: String,
    /// Names, in small letters, and values.
    pub headers: Vec<(String, String)>,
    /// What came with it.
    pub body: Vec<u8>,
    /// The connection may be used again.
    pub keep: bool,
}

impl Request {
    /// The value of a header, the first if there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// The value of a cookie, without the quotes it may stand in.
    pub fn cookie(&self, name: &str) -> Option<String> {
        let cookies = self.headers.iter().filter(|(given, _)| given == "cookie");
        cookies.flat_map(|(_, value)| value.split(';')).find_map(|pair| {
            let (given, value) = pair.split_once('=')?;
            (given.trim() == name).then(|| value.trim().trim_matches('"').to_owned())
        })
    }

    /// A parameter of the query, percent-decoded once.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let pair = self.query.split('&').find_map(|pair| {
            let (given, value) = pair.split_once('=').unwrap_or((pair, ""));
            (given == name).then_some(value)
        });
        pair.and_then(query::decode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found_with_and_without_quotes() {
        let cookie = |value: &str| {
            let headers = vec![("cookie".to_owned(), value.to_owned())];
            Request { headers, ..Request::default() }.cookie("vmware_soap_session")
        };
        assert_eq!(cookie("a=b; vmware_soap_session=\"x y\"; Path=/").as_deref(), Some("x y"));
        assert_eq!(cookie("vmware_soap_session=x").as_deref(), Some("x"));
        assert_eq!(cookie("other=x"), None);
    }

    #[test]
    fn parameters_are_decoded_once() {
        let request = Request { query: "dcPath=ha%252d&dsName=a%20b+c&x".to_owned(), ..Request::default() };
        assert_eq!(request.parameter("dcPath").as_deref(), Some("ha%2d"));
        assert_eq!(request.parameter("dsName").as_deref(), Some("a b+c"));
        assert_eq!(request.parameter("x").as_deref(), Some(""));
        assert_eq!(request.parameter("y"), None);
    }
}
