"""The tables of the registry, and how a registry of a former version comes to this one.

Statements end in a semicolon at the end of a line: registry.py runs them one by one, in one transaction.
"""

VERSION = 3

BOARDS = """
create table board (
    id                text    primary key,          -- painted on the board, 1..32 characters
    state             text    not null check (state in ('pending', 'enrolled', 'revoked', 'rejected', 'replaced',
                                                        'decommissioned')),
                      -- pending: the credential is signed and may be on the board; something is still missing:
                      -- that the board confirms it, or that a second person accepts the board
    sign_key          blob    not null unique,      -- x and y, 64 bytes
    agree_key         blob    not null,             -- x and y, 64 bytes
    tier              integer not null,             -- 0 software, 1 chip, 2 secure element
    model             text    not null,
    hardware          blob    not null,             -- machine.unique_id()
    credential        blob    not null,             -- the COSE_Sign1 that the board holds, byte for byte
    credential_digest blob    not null,             -- 16 bytes; the predecessor of its first report
    begun             integer not null,             -- Unix seconds: the credential was signed
    decision          integer not null,             -- 1: a second person must accept it
    delivered         integer,                      -- Unix seconds: the board confirmed
    enrolled          integer,                      -- Unix seconds: confirmed, and accepted if that was needed
    ended             integer,                      -- Unix seconds: revoked, rejected, replaced or decommissioned
    reason            text,                         -- why it ended
    replaced_by       text,                         -- the board that took its post
    check ((enrolled is null) or state <> 'pending'),
    check ((ended is null) = (state in ('pending', 'enrolled')))
) strict
"""
HANGINGS = """
create table hanging (                              -- which board hung at which post: never deleted
    board     text    not null,
    post      text    not null,                     -- the id of the post
    latitude  integer,                              -- WGS 84, 1e-7 degrees
    longitude integer,
    since     integer not null,                     -- Unix seconds
    until     integer,                              -- Unix seconds; null: it hangs there
    check ((latitude is null) = (longitude is null))
) strict
"""
FORMERS = """
create table former (                               -- keys that a board had before, in order: never deleted
    board             text    not null,
    sign_key          blob    not null unique,      -- x and y, 64 bytes
    agree_key         blob    not null,             -- x and y, 64 bytes
    credential        blob    not null,             -- the COSE_Sign1 of these keys
    credential_digest blob    not null,             -- 16 bytes; the first of them is where the board's chain began
    last              integer not null,             -- sequence of the last report that they signed: the board's word
    until             integer not null,             -- Unix seconds: its receipt came
    primary key (board, credential_digest)
) strict
"""
ORDERS = """
create table counter (                              -- of orders to a board: none is ever given twice
    board text    primary key,
    value integer not null
) strict;
create table under_way (                            -- at most one thing with each board
    board      text    primary key,
    act        text    not null check (act in ('rotate', 'decommission')),
    step       text    not null check (step in ('asked', 'given', 'told')),
    counter    integer not null,                    -- of the order that is out
    ordered    blob    not null,                    -- that order, the COSE_Sign1
    credential blob,                                -- of the next keys, once it is signed
    reason     text,                                -- why it is decommissioned
    begun      integer not null,                    -- Unix seconds
    check ((step = 'given') <= (credential is not null))
) strict;
create table receipt (                              -- what boards have done: never deleted
    board   text    not null,
    counter integer not null,
    act     text    not null check (act in ('rotate', 'decommission')),
    ordered blob    not null,                       -- the order, the COSE_Sign1
    body    blob    not null,                       -- the receipt, the COSE_Sign1
    last    integer not null,                       -- sequence of the last report closed before: the board's word
    at      integer not null,                       -- Unix seconds: it came
    primary key (board, counter)
) strict
"""
SCHEMA = f"""
{BOARDS};
{HANGINGS};
create unique index hangs on hanging (board) where until is null;
{FORMERS};
{ORDERS};
create table roster (
    gateway text    not null,
    version integer not null,                       -- one more for each roster of a gateway
    issued  integer not null,                       -- Unix seconds
    digest  blob    not null,                       -- SHA-256 of its payload, 32 bytes
    body    blob    not null,                       -- the COSE_Sign1
    primary key (gateway, version)
) strict;
create table if not exists roster_floor (           -- after a restore: what may have been given out since the backup
    version integer not null                        -- no roster gets a lower one
) strict;
"""
# Version 1 had the place in the board's row, and knew no second person and no replacing.
FROM_1 = f"""
alter table board rename to old;
{BOARDS};
{HANGINGS};
create unique index hangs on hanging (board) where until is null;
insert into board select id, state, sign_key, agree_key, tier, model, hardware, credential, credential_digest, begun, 0,
    enrolled, enrolled, revoked, reason, null from old;
insert into hanging select id, post, latitude, longitude, coalesce(enrolled, begun), revoked
    from old where post is not null;
drop table old;
create table if not exists roster_floor (version integer not null) strict;
{FORMERS};
{ORDERS}
"""
# Version 2 knew no orders: no board had former keys, none was decommissioned.
FROM_2 = f"""
alter table board rename to old;
{BOARDS};
insert into board select * from old;
drop table old;
{FORMERS};
{ORDERS}
"""
FORMER_VERSIONS = {1: FROM_1, 2: FROM_2}
