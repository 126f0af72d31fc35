"""SOAP 1.1 as far as UPnP control needs it (Device Architecture 2.0 section 3). Pure."""

from collections.abc import Mapping

from dhtvpn.errors import DecodeError
from dhtvpn.nat.port_mapping import strict_xml

INVALID_ACTION, INVALID_ARGS, ACTION_FAILED = 401, 402, 501
CONFLICT, SAME_PORT_REQUIRED, ONLY_PERMANENT_LEASES = 718, 724, 725
"""Of WANIPConnection:1 section 2.4.16.4."""


def body(kind: str, action: str, arguments: Mapping[str, str | int]) -> bytes:
    """The envelope of a call of ``action`` of the service ``kind``; the order of ``arguments`` matters."""
    inside = "".join(f"<{name}>{_escaped(value)}</{name}>" for name, value in arguments.items())
    return (
        '<?xml version="1.0"?>\r\n'
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
        's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
        f'<u:{action} xmlns:u="{kind}">{inside}</u:{action}></s:Body></s:Envelope>\r\n'
    ).encode()


def _escaped(value: str | int) -> str:
    """As text of an element. The standard library's function would load an HTTP client."""
    return str(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class FaultError(DecodeError):
    """The gateway refused the call. ``code``: UPnP's number, 0 where it told none that makes sense."""

    def __init__(self, code: int) -> None:
        super().__init__("upnp_fault", str(code))
        self.code = code


def decode(document: bytes, action: str) -> dict[str, str]:
    """The arguments of the answer to ``action``. Raises FaultError, or DecodeError: xml_*, soap_format."""
    root = strict_xml.parse(document)
    for fault in root.find_all("Fault"):
        codes = [element.text.strip() for element in fault.find_all("errorCode")]
        text = codes[0] if codes else ""
        raise FaultError(int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0)
    answers = root.find_all(f"{action}Response")
    if not answers:
        raise DecodeError("soap_format")
    return {child.name: child.text.strip() for child in answers[0].children}


def headers(kind: str, action: str) -> dict[str, str]:
    """The header fields of the call beside those of every request."""
    return {"Content-Type": 'text/xml; charset="utf-8"', "SOAPAction": f'"{kind}#{action}"'}
