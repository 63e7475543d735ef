// For who was led here by another site: what this page itself asks for goes with the cookie.

const asked = location.href;
history.replaceState(null, "", "/static/"); // or a fragment in it would be looked for on this page
location.replace(asked);
