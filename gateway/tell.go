package gateway

import "time"

const tellEvery = time.Second
