//! Servers that are silent or slow.

use super::*;

#[test]
fn a_silent_server_is_given_up_in_time() {
    let mut setting = Setting::new(Replies::Structured);
    setting.options.request = Duration::from_millis(50);
    for half in [0, 7, 20, 40] {
        let client = setting.client(vec![script(move |peer| {
            let asked = peer.asked()?;
            let mut bytes = 0x668e_33ef_u32.to_be_bytes().to_vec();
            bytes.extend_from_slice(&[0, 1, 0, 1]);
            bytes.extend_from_slice(&asked.cookie.to_be_bytes());
            bytes.extend_from_slice(&1008_u32.to_be_bytes());
            bytes.extend_from_slice(&[0; 100]);
            bytes[27] = 0;
            peer.say(&bytes[..half])?;
            peer.silence();
            Ok(())
        })]);
        let began = Instant::now();
        let e = client.read(&mut [0; 1000], 0).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::TimedOut, "{e}");
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

/// A reply that comes byte by byte, each in good time: what `steady` is sent at once, then the rest of it drips.
fn drips(steady: Vec<u8>, drop: Vec<u8>, drops: u32) -> impl FnOnce(&Peer) -> Result<(), Gone> + Send {
    move |peer| {
        let cookie = peer.asked()?.cookie;
        let with_cookie = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            if let Some(place) = bytes.get_mut(8..16) {
                place.copy_from_slice(&cookie.to_be_bytes());
            }
            bytes
        };
        peer.say(&with_cookie(&steady))?;
        for _ in 0..drops {
            std::thread::sleep(Duration::from_millis(20));
            peer.say(&with_cookie(&drop))?;
        }
        peer.silence();
        Ok(())
    }
}

#[test]
fn a_server_that_drips_gets_no_more_time_than_a_silent_one() {
    let mut setting = Setting::new(Replies::Structured);
    setting.options.request = Duration::from_millis(200);
    let head = |done: u16, kind: u16, length: u32| {
        let words = [0x668e_u16, 0x33ef, done, kind, 0, 0, 0, 0];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes
    };
    let payload = [head(1, 1, 100_008), vec![0; 8]].concat();
    let error = [head(0, 0x8001, 6), vec![0, 0, 0, 5, 0, 0]].concat();
    for (what, steady, drop) in [
        ("a payload", payload, vec![0]),
        ("a head", vec![0x66], vec![0x8e]),
        ("errors without an end", Vec::new(), error),
    ] {
        let client = setting.client(vec![script(drips(steady, drop, 300))]);
        let began = Instant::now();
        let e = client.read(&mut [0; 100_000], 0).unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(3), "{what}: {:?}", began.elapsed());
        assert_eq!(e.kind(), ErrorKind::TimedOut, "{what}: {e}");
        assert!(e.to_string().contains("rest of a reply"), "{what}: {e}");
    }
}

/// Before it begins, and from reply to reply, the time counts anew.
#[test]
fn a_server_that_thinks_and_then_is_slow_has_time_for_both() {
    let mut setting = Setting::new(Replies::Simple);
    setting.options.request = Duration::from_millis(1000);
    setting.options.window = 2 << 20;
    let client = setting.client(vec![script(|peer| {
        let asked = [peer.asked()?, peer.asked()?];
        for Asked { cookie, len, .. } in asked {
            std::thread::sleep(Duration::from_millis(600));
            let reply = [&0x6744_6698_u32.to_be_bytes()[..], &[0; 4], &cookie.to_be_bytes()].concat();
            peer.say(&reply)?;
            peer.say(&[1])?;
            std::thread::sleep(Duration::from_millis(600));
            peer.say(&vec![1; len as usize - 1])?;
        }
        Ok(())
    })]);
    client.read(&mut vec![0; 1 << 20], 0).unwrap();
}

#[test]
fn a_request_that_is_never_answered_ends_though_others_are() {
    let mut setting = Setting::new(Replies::Structured);
    setting.options.request = Duration::from_millis(300);
    setting.options.reconnect = Duration::from_secs(20);
    let (store, later) = (store(), store());
    let kept = Arc::clone(&store);
    let forgetful = script(move |peer| {
        loop {
            let asked = peer.asked()?;
            if asked.offset != 0 {
                answer(peer, &kept, &asked)?;
            }
        }
    });
    let client = setting.client(vec![forgetful, (honest(&later), None)]);
    let (told, ended) = mpsc::channel();
    let finish: Finish = Box::new(move |_, result: Result<()>| drop(told.send(result)));
    assert!(client.start(Transfer::ReadOwned(vec![0; 4096]), 0, finish).is_none());
    let began = Instant::now();
    let result = loop {
        client.read(&mut [0; 512], 8192).unwrap();
        if let Ok(result) = ended.try_recv() {
            break result;
        }
        assert!(began.elapsed() < Duration::from_secs(20));
    };
    let e = result.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::TimedOut);
    assert!(e.to_string().contains("no answer to the read of 4096 bytes at 0x0"), "{e}");
    client.read(&mut [0; 512], 0).unwrap();
}
