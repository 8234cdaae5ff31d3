//! The session manager: logins, clones of sessions, and tickets for transfers over HTTPS.

use std::sync::Arc;

use crate::error::Error;
use crate::sim::session;
use crate::sim::site::Site;
use crate::sim::soap::call::Call;
use crate::sim::soap::call::Outcome;
use crate::sim::soap::call::Reply;
use crate::sim::soap::fault::Fault;
use crate::sim::tickets::UrlGrant;
use crate::sim::value::Data;
use crate::sim::xml::Arg;

/// `Login`.
pub fn login(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let (user, password) = (call.text("userName")?, call.text("password")?);
    // A session has one login only (V, `vsphere.md` 3.1).
    if call.session.is_some()
        || user != site.options.user
        || !session::is_password(&site.options.password, &password)
    {
        let text = "Cannot complete login due to an incorrect user name or password.";
        return Err(Fault::new("InvalidLogin", text));
    }
    open(site, call, &user)
}

fn open(site: &Site, call: &Call<'_>, user: &str) -> Outcome {
    match site.sessions.open(user, call.peer, &call.agent) {
        Ok(Some((cookie, session))) => {
            Ok(Reply { value: Some(session.data().into()), cookie: Some(cookie), ..Reply::default() })
        }
        Ok(None) => Err(Fault::new("InvalidLogin", "The maximum number of sessions has been exceeded.")),
        Err(e) => Err(internal(&e)),
    }
}

/// What the simulator itself failed at.
pub fn internal(e: &Error) -> Fault {
    Fault::new("SystemError", format!("A general system error occurred: {e}")).with("reason", e.to_string())
}

/// `Logout`.
pub fn logout(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    site.sessions.close(call.session()?);
    Reply::none()
}

/// `SessionIsActive`.
pub fn session_is_active(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    Reply::of(site.sessions.has_key(&call.text("sessionID")?))
}

/// `AcquireCloneTicket`.
pub fn acquire_clone_ticket(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    Reply::of(site.sessions.clone_ticket(call.session()?).map_err(|e| internal(&e))?)
}

/// `CloneSession`.
pub fn clone_session(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    match site.sessions.redeem_clone(&call.text("cloneTicket")?) {
        Some(user) if call.session.is_none() => open(site, call, &user),
        _ => Err(Fault::new(
            "InvalidLogin",
            "Cannot complete login due to an incorrect user name or password.",
        )),
    }
}

/// `AcquireGenericServiceTicket`: permission for one transfer from the host.
pub fn acquire_generic_service_ticket(site: &Arc<Site>, call: &Call<'_>) -> Outcome {
    let spec = call.args.one("spec").ok_or_else(|| Fault::argument("spec"))?;
    if spec.kind() != Some("SessionManagerHttpServiceRequestSpec") {
        return Err(Fault::argument("spec"));
    }
    let url = spec.text_of("url").ok_or_else(|| Fault::argument("spec.url"))?;
    let method = match spec.one("method").map(Arg::text).as_deref() {
        Some("httpGet") | None => "GET",
        Some("httpHead") => "HEAD",
        Some(_) => return Err(Fault::not_supported()),
    };
    let rest = url.strip_prefix("https://").ok_or_else(|| Fault::argument("spec.url"))?;
    let target = rest.find('/').and_then(|at| rest.get(at..)).ok_or_else(|| Fault::argument("spec.url"))?;
    let grant = UrlGrant { method: method.to_owned(), target: target.to_owned() };
    let id = site.tickets.for_url(grant).map_err(|e| internal(&e))?;
    Reply::of(
        Data::new("SessionManagerGenericServiceTicket")
            .with("id", id)
            .with("hostName", site.host_address())
            .with("sslThumbprint", site.identity.sha1.clone()),
    )
}
